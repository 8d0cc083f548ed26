//! Every misbehaviour by its name.

use reunion_sdk::export::reunion_abi as abi;
use reunion_sdk::{Call, PluginError, PluginKind};

use crate::raw::Which;
use crate::told::Stage;
use crate::{answers, chatter, crash, garbage, hang, memory, order, process, receipts, socket};

/// What is done.
#[derive(Clone, Copy)]
pub enum Deed {
    /// This, in code that the SDK has called. Where it returns, the plugin goes on as if nothing had happened.
    Act(fn(Option<&Call>)),
    /// The call fails with this.
    Fail(fn() -> PluginError),
    /// An item of this kind is replaced by these, which the SDK would not hand out.
    Items(Which, fn(abi::Item) -> Vec<abi::Item>),
    /// The stream that a call answers with becomes another one.
    Stream(fn(&mut abi::Stream)),
    /// The answer to a request from outside becomes another one.
    Answer(fn(&mut abi::HttpAnswer)),
}

/// One misbehaviour.
#[derive(Clone, Copy)]
pub struct Misbehaviour {
    /// As in the config.
    pub name: &'static str,
    /// What it does.
    pub deed: Deed,
    /// At every item from where it was told, rather than at one of a stream.
    pub each_item: bool,
    /// Only a channel can.
    of_channels: bool,
}

const fn act(name: &'static str, act: fn(Option<&Call>)) -> Misbehaviour {
    Misbehaviour { name, deed: Deed::Act(act), each_item: false, of_channels: false }
}

const fn items(name: &'static str, which: Which, replace: fn(abi::Item) -> Vec<abi::Item>) -> Misbehaviour {
    Misbehaviour { name, deed: Deed::Items(which, replace), each_item: false, of_channels: false }
}

const fn batch(name: &'static str, replace: fn(abi::Item) -> Vec<abi::Item>) -> Misbehaviour {
    items(name, Which::Batch, replace)
}

const fn receipt(name: &'static str, replace: fn(abi::Item) -> Vec<abi::Item>) -> Misbehaviour {
    Misbehaviour { of_channels: true, ..batch(name, replace) }
}

const fn stream(name: &'static str, spoil: fn(&mut abi::Stream)) -> Misbehaviour {
    Misbehaviour { name, deed: Deed::Stream(spoil), each_item: false, of_channels: false }
}

const fn answer(name: &'static str, spoil: fn(&mut abi::HttpAnswer)) -> Misbehaviour {
    Misbehaviour { name, deed: Deed::Answer(spoil), each_item: false, of_channels: true }
}

/// Every misbehaviour.
pub const TABLE: &[Misbehaviour] = &[
    act("sigsegv", crash::sigsegv),
    act("abort", crash::abort),
    act("stack_overflow", crash::stack_overflow),
    act("illegal", crash::illegal),
    act("exit", crash::exit),
    act("exit_nonzero", crash::exit_nonzero),
    act("panic", crash::panic),
    act("panic_foreign", crash::panic_foreign),
    act("hang", hang::hang),
    act("hang_cpu", hang::hang_cpu),
    act("allocate", memory::allocate),
    act("leak", memory::leak).each_item(),
    batch("garbage_length", garbage::length),
    batch("garbage_length_negative", garbage::length_negative),
    batch("garbage_length_huge", garbage::length_huge),
    batch("garbage_types", garbage::types),
    batch("garbage_children", garbage::children),
    batch("garbage_null_buffers", garbage::null_buffers),
    batch("garbage_no_buffers", garbage::no_buffers),
    batch("garbage_offsets", garbage::offsets_descending),
    batch("garbage_offsets_negative", garbage::offsets_negative),
    batch("garbage_offsets_range", garbage::offsets_out_of_range),
    batch("garbage_offsets_end", garbage::offsets_beyond_the_end),
    batch("garbage_utf8", garbage::utf8),
    batch("released_array", garbage::released_array),
    stream("released_stream", garbage::released_stream),
    stream("stream_without_next", garbage::stream_without_next),
    batch("too_many_rows", garbage::too_many_rows),
    batch("too_many_bytes", garbage::too_many_bytes),
    act("close_socket", socket::close),
    act("garbage_socket", socket::garbage),
    act("oversized_message", socket::oversized_message),
    items("no_begin", Which::Begin, order::no_begin),
    items("begin_twice", Which::Any, order::begin_twice),
    items("double_end", Which::End, order::double_end),
    items("item_after_end", Which::End, order::item_after_end),
    items("huge_state", Which::AfterBegin, order::huge_state),
    items("unchanged", Which::AfterBegin, order::unchanged),
    receipt("wrong_receipts", receipts::wrong),
    receipt("double_receipts", receipts::double),
    receipt("missing_receipts", receipts::missing).each_item(),
    receipt("not_sent_without_delay", receipts::not_sent_without_delay),
    answer("huge_answer", answers::huge),
    answer("odd_answer", answers::odd),
    answer("split_answer", answers::split),
    answer("framed_answer", answers::framed),
    answer("many_events", answers::many_events),
    answer("half_events", answers::half_events),
    act("flood_log", chatter::flood_log),
    act("flood_stderr", chatter::flood_stderr),
    act("phone_in_log", chatter::phone_in_log),
    Misbehaviour { name: "huge_error", deed: Deed::Fail(chatter::huge_error), each_item: false, of_channels: false },
    act("leak_threads", process::leak_threads),
    act("leak_fds", process::leak_fds),
    act("kill_parent", process::kill_parent),
    act("terminate_parent", process::terminate_parent),
    act("fork_bomb_small", process::fork_bomb_small),
    act("unload", process::unload),
    act("chdir", process::chdir),
    act("env", process::env),
    act("signal_handlers", process::signal_handlers),
];

impl Misbehaviour {
    const fn each_item(self) -> Self {
        Self { each_item: true, ..self }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|one| one.name == name)
    }

    /// Those that a plugin of this kind can be told.
    pub fn of(kind: PluginKind) -> impl Iterator<Item = &'static Self> {
        TABLE.iter().filter(move |one| !one.of_channels || kind == PluginKind::Channel)
    }

    /// Where it can be done in a plugin of this kind.
    pub fn stages(&self, kind: PluginKind) -> Vec<Stage> {
        let fits = |stage: &Stage| match self.deed {
            Deed::Act(_) => true,
            Deed::Fail(_) => stage.can_fail(),
            Deed::Stream(_) => matches!(stage, Stage::Read | Stage::Push | Stage::Poll),
            Deed::Answer(_) => *stage == Stage::Callback,
            // Rows come in no order that a marker could break where there are none, and a poll of ours has none.
            Deed::Items(Which::Begin, _) => *stage == Stage::Item,
            Deed::Items(Which::Batch, _) => matches!(stage, Stage::Item | Stage::Receipt),
            Deed::Items(Which::End, _) => matches!(stage, Stage::End | Stage::Poll),
            Deed::Items(Which::AfterBegin | Which::Any, _) => matches!(stage, Stage::Item | Stage::Receipt | Stage::Poll),
        };
        Stage::of(kind).iter().copied().filter(fits).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_misbehaviour_has_a_place() {
        for (at, one) in TABLE.iter().enumerate() {
            assert!(TABLE[..at].iter().all(|other| other.name != one.name), "{}", one.name);
        }
        let placeless = |kind| Misbehaviour::of(kind).filter(|one| one.stages(kind).is_empty()).map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(placeless(PluginKind::Source), [""; 0]);
        assert_eq!(placeless(PluginKind::Channel), ["no_begin"], "a push has no begin marker");
    }
}
