//! The sockets of the process, among them the one that a worker talks to its daemon on.

use std::fs;
use std::os::fd::RawFd;

use reunion_sdk::Call;

/// A frame of the worker's socket begins with the length of what it carries, little-endian, and a byte of its kind.
const CLAIMED_BYTES: u32 = 2 << 30;
/// Rows, of which the daemon takes the longest frames.
const KIND: u8 = 70;
const GARBAGE_BYTES: usize = 64 << 10;

/// Closes every socket of the process.
pub(crate) fn close(_: Option<&Call>) {
    for socket in sockets() {
        // SAFETY: whoever owns it is in for a surprise, which is what is wanted.
        unsafe { libc::close(socket) };
    }
}

/// Writes what nobody understands to every socket.
pub(crate) fn garbage(_: Option<&Call>) {
    let mut bytes = vec![0_u8; GARBAGE_BYTES];
    // SAFETY: the buffer is as long as it says. Where there is no randomness the zeroes are garbage too.
    let _ = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    write_to_all(&bytes);
}

/// Writes the head of a message to every socket that claims to be 2 GiB long, and the beginning of it.
pub(crate) fn oversized_message(_: Option<&Call>) {
    let mut bytes = CLAIMED_BYTES.to_le_bytes().to_vec();
    bytes.push(KIND);
    bytes.resize(4 << 10, b'x');
    write_to_all(&bytes);
}

fn write_to_all(bytes: &[u8]) {
    for socket in sockets() {
        // SAFETY: the bytes are valid. It neither waits nor signals: what a socket does not take it does not get.
        unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    }
}

fn sockets() -> Vec<RawFd> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let descriptors = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    descriptors.filter(|descriptor| is_socket(*descriptor)).collect()
}

fn is_socket(descriptor: RawFd) -> bool {
    // SAFETY: all zeroes is a valid `stat`, which the call fills in; any number may be asked for.
    let (found, stat) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(descriptor, &raw mut stat) == 0, stat)
    };
    found && stat.st_mode & libc::S_IFMT == libc::S_IFSOCK
}
