//! Frames: written whole, read with a bound.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use reunion_model::limits::{BATCH_BYTES_MAX, CALLBACK_BODY_BYTES_MAX, CALLBACK_EVENTS_BYTES_MAX, CONTROL_BYTES_MAX};

/// Bytes before the payload.
const HEADER_BYTES: usize = 9;
/// Bytes of a frame that holds JSON: a document of the contract, another that stands beside it, and what is
/// written around them.
const CONTROL_FRAME_BYTES_MAX: usize = 2 * CONTROL_BYTES_MAX + (64 << 10);
/// Bytes of a frame that holds a batch: its rows, and its schema with what padding takes.
const BATCH_FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + (2 << 20);
/// Bytes of a frame that holds the events of a callback, with their schema and padding.
const EVENTS_FRAME_BYTES_MAX: usize = CALLBACK_EVENTS_BYTES_MAX + (256 << 10);

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// To the worker: what to load and make. JSON.
    Start = 1,
    /// To the worker: the library to look at. JSON.
    Scan = 2,
    /// To the worker: a call. JSON.
    Call = 3,
    /// To the worker: tasks of the push whose call follows. IPC.
    Tasks = 4,
    /// To the worker: so many items more may be sent (4 bytes).
    Credit = 5,
    /// To the worker: nobody wants the rest of the stream.
    Release = 6,
    /// To the worker: stop the component.
    Cancel = 7,
    /// To the worker: end.
    Bye = 8,
    /// Either way: the body of a request, whose call follows, or of its answer. Bytes.
    Body = 9,
    /// The component is made. JSON.
    Ready = 64,
    /// What the library says of itself. JSON.
    Scanned = 65,
    /// The call, or the start, failed, and is over. JSON.
    Failed = 66,
    /// The findings of a check. The call is over. JSON.
    Findings = 67,
    /// The columns of a source. The call is over. IPC.
    Schema = 68,
    /// An item. JSON.
    Begin = 69,
    /// An item. IPC.
    Batch = 70,
    /// An item. IPC.
    Rejected = 71,
    /// An item. JSON.
    State = 72,
    /// The last item. The call is over. JSON.
    End = 73,
    /// The stream is released. The call is over.
    Released = 74,
    /// A log event. JSON.
    Log = 75,
    /// The events of a callback, whose answer follows. IPC.
    Events = 76,
    /// The answer to a request from outside. The call is over. JSON.
    Answer = 77,
}

impl Kind {
    const ALL: [Self; 23] = [
        Self::Start,
        Self::Scan,
        Self::Call,
        Self::Tasks,
        Self::Credit,
        Self::Release,
        Self::Cancel,
        Self::Bye,
        Self::Body,
        Self::Ready,
        Self::Scanned,
        Self::Failed,
        Self::Findings,
        Self::Schema,
        Self::Begin,
        Self::Batch,
        Self::Rejected,
        Self::State,
        Self::End,
        Self::Released,
        Self::Log,
        Self::Events,
        Self::Answer,
    ];

    /// Whether it is one item of a stream, or a part of an answer: no more of them come than the daemon asked for.
    pub(crate) const fn is_item(self) -> bool {
        matches!(self, Self::Begin | Self::Batch | Self::Rejected | Self::State | Self::End | Self::Body | Self::Events)
    }

    /// Whether nothing comes for its call after it.
    pub(crate) const fn ends_call(self) -> bool {
        matches!(self, Self::Failed | Self::Findings | Self::Schema | Self::End | Self::Released | Self::Answer)
    }

    const fn bytes_max(self) -> usize {
        match self {
            Self::Tasks | Self::Schema | Self::Batch | Self::Rejected => BATCH_FRAME_BYTES_MAX,
            Self::Body => CALLBACK_BODY_BYTES_MAX,
            Self::Events => EVENTS_FRAME_BYTES_MAX,
            _ => CONTROL_FRAME_BYTES_MAX,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// The call that it belongs to; 0: none.
    pub(crate) call: u32,
    pub(crate) payload: Vec<u8>,
}

/// Why no frame can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The other side closed the connection.
    #[error("it closed its connection")]
    Closed,
    /// In the middle of a frame.
    #[error("it closed its connection in the middle of a message")]
    Cut,
    /// No kind that there is.
    #[error("it sent a message of kind {0}, which there is not")]
    Kind(u8),
    /// Longer than a frame of its kind may be.
    #[error("it sent a message of {bytes} bytes, and {bytes_max} are the limit")]
    Length { bytes: usize, bytes_max: usize },
    /// The system refuses.
    #[error("its connection cannot be read: {0}")]
    Io(#[source] io::Error),
}

/// Writes one frame whose payload is these parts.
///
/// # Errors
/// Where the other side is gone, or takes nothing for as long as the stream waits. What was written may be a part
/// of the frame: the connection is of no use any more. Invalid input for a payload that is too long, of which
/// nothing is written.
pub(crate) fn write(out: &mut impl Write, kind: Kind, call: u32, payload: &[u8]) -> io::Result<()> {
    if payload.len() > kind.bytes_max() {
        let text = format!("a message of {} bytes, and {} are the limit", payload.len(), kind.bytes_max());
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[4] = kind as u8;
    header[5..].copy_from_slice(&call.to_le_bytes());
    let mut parts = [IoSlice::new(&header), IoSlice::new(payload)];
    let mut parts = &mut parts[..];
    // `write_all_vectored` of the standard library is not stable yet.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match out.write_vectored(parts) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut parts, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads one frame. No more memory is taken than a frame of its kind may have.
///
/// # Errors
/// Where there is none, or none that can be one.
pub(crate) fn read(stream: &mut impl Read) -> Result<Frame, FrameError> {
    let mut header = [0; HEADER_BYTES];
    let mut filled = 0;
    while filled < HEADER_BYTES {
        match stream.read(&mut header[filled..]) {
            Ok(0) => return Err(if filled == 0 { FrameError::Closed } else { FrameError::Cut }),
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(FrameError::Closed),
            Err(error) => return Err(FrameError::Io(error)),
        }
    }
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (bytes, call) = (number(0) as usize, number(5));
    let kind = Kind::from_byte(header[4]).ok_or(FrameError::Kind(header[4]))?;
    let bytes_max = kind.bytes_max();
    if bytes > bytes_max {
        return Err(FrameError::Length { bytes, bytes_max });
    }
    let mut payload = Vec::with_capacity(bytes);
    match stream.take(bytes as u64).read_to_end(&mut payload) {
        Ok(read) if read == bytes => Ok(Frame { kind, call, payload }),
        Ok(_) => Err(FrameError::Cut),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(FrameError::Cut),
        Err(error) => Err(FrameError::Io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(kind: Kind, call: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, kind, call, payload).expect("memory takes it");
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let mut stream = Vec::new();
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            write(&mut stream, kind, at as u32, &vec![kind as u8; at * 1000]).expect("written");
        }
        let mut stream = stream.as_slice();
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            let frame = read(&mut stream).expect("a frame");
            assert_eq!((frame.kind, frame.call, frame.payload), (kind, at as u32, vec![kind as u8; at * 1000]));
        }
        assert!(matches!(read(&mut stream), Err(FrameError::Closed)));
    }

    #[test]
    fn a_length_that_is_claimed_takes_no_memory() {
        let mut claimed = bytes(Kind::Batch, 1, b"x");
        claimed[..4].copy_from_slice(&(2_u32 << 30).to_le_bytes());
        assert!(matches!(read(&mut claimed.as_slice()), Err(FrameError::Length { bytes, .. }) if bytes == 2 << 30));
        let too_long = vec![0; CONTROL_FRAME_BYTES_MAX + 1];
        assert_eq!(write(&mut Vec::new(), Kind::State, 1, &too_long).expect_err("refused").kind(), ErrorKind::InvalidInput);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever is sent, it is a frame or an error.
        #[test]
        fn no_bytes_panic(garbage in proptest::collection::vec(any::<u8>(), 0..64), cut in 0_usize..20) {
            let mut stream = garbage.as_slice();
            while read(&mut stream).is_ok() {}
            let whole = bytes(Kind::State, 7, b"{\"row\":1}");
            let cut = cut.min(whole.len() - 1);
            let error = read(&mut &whole[..cut]).expect_err("cut off");
            prop_assert!(matches!(error, FrameError::Closed) == (cut == 0) && matches!(error, FrameError::Cut) == (cut > 0), "{error:?}");
        }
    }
}
