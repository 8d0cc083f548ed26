//! What a library is told before there is a config: by a file in its own folder.

use std::ffi::{OsStr, c_void};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::process::library_of;
use crate::table::{Deed, Misbehaviour};

/// The file's name.
const FILE: &str = "misbehave";

/// Where a library can misbehave without a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Early {
    /// As soon as it is loaded.
    Load,
    /// When it is asked for its manifest.
    Manifest,
    /// When it is asked for its table of functions.
    Entry,
}

/// Called by the loader, before anything of the library is.
pub extern "C" fn at_load() {
    reach(Early::Load);
}

/// Misbehaves, if the file says that this is where to.
pub(crate) fn reach(at: Early) {
    let Some(text) = told() else { return };
    match parse(&text) {
        Ok((act, told_at)) if told_at == at => act(None),
        Ok(_) => {}
        // Nobody is there who would take an error, and a test must not take this for good behaviour.
        Err(error) => {
            let line = format!("{FILE}: {error}\n");
            // SAFETY: the text is valid.
            unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
            std::process::abort();
        }
    }
}

fn told() -> Option<String> {
    let library = library_of(reach as *const c_void)?;
    let folder = Path::new(OsStr::from_bytes(library.to_bytes())).parent()?;
    fs::read_to_string(folder.join(FILE)).ok()
}

type Act = fn(Option<&reunion_sdk::Call>);

/// A name, and where it is to be done.
fn parse(text: &str) -> Result<(Act, Early), String> {
    let mut words = text.split_whitespace();
    let name = words.next().ok_or("it says nothing")?;
    let at = match words.next() {
        None | Some("manifest") => Early::Manifest,
        Some("load") => Early::Load,
        Some("entry") => Early::Entry,
        Some(other) => return Err(format!("{other:?} is no place: load, manifest and entry are")),
    };
    match Misbehaviour::named(name).map(|one| one.deed) {
        Some(Deed::Act(act)) => Ok((act, at)),
        Some(_) => Err(format!("{name} cannot be done before there is a component")),
        None => Err(format!("there is no misbehaviour {name:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_what_and_where() {
        let place = |text: &str| parse(text).map(|(_, at)| at);
        assert_eq!(place("sigsegv"), Ok(Early::Manifest));
        assert_eq!(place("abort load\n"), Ok(Early::Load));
        assert_eq!(place("hang entry"), Ok(Early::Entry));
        for text in ["", "nothing", "garbage_utf8", "abort later"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
