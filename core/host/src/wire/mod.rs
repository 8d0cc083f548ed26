//! What the daemon and a worker say to one another, over a socket: frames of a bounded length, control as JSON,
//! batches as Arrow IPC.
//!
//! A frame is `length | kind | call | payload`: 4 bytes of the payload's length, 1 of its kind, 4 of the call that
//! it belongs to (0: none), little-endian. The daemon gives calls their numbers. Items of a stream are sent only
//! as far as the daemon has asked for them, so that neither side ever holds more than a few.
//!
//! Both sides are the same program, so the protocol has no version. The daemon trusts no frame: a plugin can write
//! to the socket as well as the worker around it.

mod batches;
mod frame;
mod message;

pub(crate) use batches::{decode, decode_schema, encode, encode_schema};
pub(crate) use frame::{Frame, FrameError, Kind, read, write};
pub(crate) use message::{AnswerMessage, CallMessage, LogMessage, Ready, Request, Scan, Start, What};
