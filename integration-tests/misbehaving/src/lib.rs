//! A source and a channel that misbehave on command, to test that a bad plugin costs one component and nothing else.
//!
//! Without a command both are well-behaved: `rows` made-up members with resume states, and a channel that accepts
//! every task, and takes each line `task <id>` of a request from outside for a member who was added. The command stands in the component's config:
//!
//! | key | means |
//! |---|---|
//! | `do` | a name of [`TABLE`] |
//! | `at` | where: a [`Stage`] of the plugin's kind. Not every misbehaviour can be done everywhere; the config is refused where it cannot |
//! | `after_rows` | with `item`: at the item that follows this many rows of the data, those of a read that it goes on from among them. With `receipt`: at the batch that follows this many receipts of the dispatch; its tasks have been sent by then, and their receipts have not been handed out |
//! | `once_file` | misbehave only while this file is not there; it is made just before, so that a new worker goes well |
//! | `counter_file` | `call check`, `call read`, … and `task <id>` for each task that was sent, one a line, appended; a task that is pushed again has another line. Nothing of a dry run |
//!
//! What happens before there is a config is told by a file `misbehave` in the library's own folder: a name of
//! [`TABLE`], then `load` (the library is being loaded), `manifest` (the default) or `entry`.
//!
//! | module | misbehaves by |
//! |---|---|
//! | `crash` | ending the process, or panicking |
//! | `hang` | not answering, whether or not it is cancelled |
//! | `memory` | taking more and more |
//! | `garbage` | Arrow structs that are not what they say |
//! | `socket` | closing and writing to the process's sockets |
//! | `order` | items that come in another order, or are too large |
//! | `receipts` | receipts that are wrong, missing or there twice |
//! | `answers` | answers to requests from outside that nobody can send on |
//! | `chatter` | flooding the log and the standard streams, and telling what is not to be told |
//! | `process` | changing, leaking or killing what belongs to the whole process and to others |
//!
//! What the SDK would not let an author do is done below it: see `raw`.
#![allow(unsafe_code)]

mod answers;
mod beside;
mod channel;
mod chatter;
mod counter;
mod crash;
mod garbage;
mod hang;
mod memory;
mod order;
mod process;
mod raw;
mod receipts;
mod socket;
mod source;
mod table;
mod told;

pub use beside::at_load;
pub use channel::MisbehavingChannel;
pub use raw::{channel_plugin, source_plugin};
pub use source::{MisbehavingSource, phone};
pub use table::{Deed, Misbehaviour, TABLE};
pub use told::Stage;

/// Obviously invented, and never to be seen in a log or an error.
pub const PHONE: &str = "13900001234";

/// Has the library look for its file `misbehave` as soon as it is loaded, before anything of it is called.
#[macro_export]
macro_rules! at_load {
    () => {
        #[allow(unsafe_code)]
        const _: () = {
            // SAFETY: the section holds pointers to functions of this type, and this is one.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static AT_LOAD: extern "C" fn() = $crate::at_load;
        };
    };
}
