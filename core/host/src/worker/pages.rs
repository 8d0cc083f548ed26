//! What a worker gives back when it has started.

use std::ffi::c_void;
use std::os::raw::c_int;

use crate::usage::page_bytes;

/// Gives back the pages of the program's own file that were only needed to start: tables of relocations, and code
/// that runs once. What is needed again comes from the file, which the daemon keeps in memory anyway.
///
/// Of libraries nothing is given back: one that was built without position-independent code has changes in its code.
pub(super) fn give_back_start() {
    // SAFETY: the function is called during this call only, with data of the loader that lives as long.
    unsafe { libc::dl_iterate_phdr(Some(give_back_of_first), std::ptr::null_mut()) };
}

/// Called with the program itself first; what it returns ends the calls.
unsafe extern "C" fn give_back_of_first(object: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the loader hands over a record that is valid for this call.
    let object = unsafe { &*object };
    // SAFETY: it says where its headers are and how many.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        give_back(object.dlpi_addr + header.p_vaddr, header.p_memsz);
    }
    1
}

/// Gives back the whole pages from an address on.
fn give_back(address: u64, length: u64) {
    let page = page_bytes();
    let (from, to) = (address.next_multiple_of(page), (address + length) / page * page);
    if from < to {
        // SAFETY: the pages are those of a private mapping of a file that was never writable. They are the file's, so
        // what the next access finds is what was there. Where the kernel refuses, they stay.
        unsafe { libc::madvise(from as *mut c_void, (to - from) as usize, libc::MADV_DONTNEED) };
    }
}
