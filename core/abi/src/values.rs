//! Text, owned bytes, and errors.

use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::str::Utf8Error;

/// Borrowed UTF-8 text, valid for the call that it is an argument of.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Str {
    /// First byte; may be null where `len` is 0. Not ended by a zero byte.
    pub ptr: *const u8,
    /// Bytes.
    pub len: usize,
}

impl Str {
    /// No text.
    pub const EMPTY: Self = Self { ptr: ptr::null(), len: 0 };

    /// This text, which the result must not outlive.
    pub const fn borrow(text: &str) -> Self {
        Self { ptr: text.as_ptr(), len: text.len() }
    }

    /// The text.
    ///
    /// # Errors
    /// Where the bytes are not UTF-8.
    ///
    /// # Safety
    /// `ptr` and `len` must describe bytes that stay as they are for `'a`.
    pub unsafe fn as_str<'a>(self) -> Result<&'a str, Utf8Error> {
        // SAFETY: the caller's promise.
        std::str::from_utf8(unsafe { bytes(self.ptr, self.len) })
    }

    /// The text, with what is not UTF-8 replaced, and no more than about `bytes_max` of it.
    ///
    /// # Safety
    /// As for [`Str::as_str`].
    pub unsafe fn to_text(self, bytes_max: usize) -> String {
        // SAFETY: the caller's promise; a shorter length describes a part of the same bytes.
        let text = String::from_utf8_lossy(unsafe { bytes(self.ptr, self.len.min(bytes_max)) });
        if self.len > bytes_max { format!("{}…", text.trim_end_matches(char::REPLACEMENT_CHARACTER)) } else { text.into_owned() }
    }
}

/// Borrowed bytes, valid for the call that they are an argument of.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    /// First byte; may be null where `len` is 0.
    pub ptr: *const u8,
    /// How many.
    pub len: usize,
}

impl Bytes {
    /// These bytes, which the result must not outlive.
    pub const fn borrow(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// The bytes.
    ///
    /// # Safety
    /// `ptr` and `len` must describe bytes that stay as they are for `'a`.
    pub unsafe fn as_slice<'a>(self) -> &'a [u8] {
        // SAFETY: the caller's promise.
        unsafe { bytes(self.ptr, self.len) }
    }
}

/// # Safety
/// `ptr` must be null, or valid for `len` bytes for `'a`.
unsafe fn bytes<'a>(ptr: *const u8, len: usize) -> &'a [u8] {
    if ptr.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(ptr, len) }
}

/// Bytes that belong to whoever holds them, who gives them back through `release`.
#[repr(C)]
pub struct Buf {
    /// First byte; null where there are none.
    pub ptr: *mut u8,
    /// Bytes.
    pub len: usize,
    /// The maker's own.
    pub private_data: *mut c_void,
    /// Gives the bytes back and sets itself to null; null where there is nothing to give back.
    pub release: Option<unsafe extern "C" fn(*mut Buf)>,
}

impl Buf {
    /// No bytes: what the caller passes to be filled.
    pub const fn empty() -> Self {
        Self { ptr: ptr::null_mut(), len: 0, private_data: ptr::null_mut(), release: None }
    }

    /// These bytes.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let owner = Box::into_raw(Box::new(bytes));
        // SAFETY: the box was just made, and nobody else knows of it.
        let bytes = unsafe { &mut *owner };
        Self { ptr: bytes.as_mut_ptr(), len: bytes.len(), private_data: owner.cast(), release: Some(release_buf) }
    }

    /// The bytes.
    ///
    /// # Safety
    /// Whoever filled it must have kept the contract: `len` bytes at `ptr` until `release`.
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: the caller's promise; the borrow of self keeps `release` from being called.
        unsafe { bytes(self.ptr, self.len) }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: `release` is there, so the bytes were not given back, and self is not used again.
            unsafe { release(self) }
        }
    }
}

unsafe extern "C" fn release_buf(buf: *mut Buf) {
    // SAFETY: called once by the holder with the struct that `from_vec` made: `private_data` is its box.
    unsafe {
        drop(Box::from_raw((*buf).private_data.cast::<Vec<u8>>()));
        ptr::write(buf, Buf::empty());
    }
}

/// An error. The caller makes it empty, the callee fills it where its status is not 0.
#[repr(C)]
pub struct Error {
    /// Bytes of the struct, set by the caller.
    pub size: u32,
    /// The vendor's own code; 0 where there is none.
    pub vendor_code: i32,
    /// Not before this delay; 0 where it is not known.
    pub retry_after_ms: u64,
    /// One line, no personal data, no secret.
    pub message: Str,
    /// What to do; empty where it is not known.
    pub hint: Str,
    /// The key of the config to blame, dotted; empty where there is none.
    pub key: Str,
    /// The callee's own.
    pub private_data: *mut c_void,
    /// Gives the texts back and sets itself to null; null where nothing was filled in.
    pub release: Option<unsafe extern "C" fn(*mut Error)>,
}

impl Error {
    /// Bytes of the struct at version 1.0.
    pub const SIZE_1_0: u32 = size_of::<Self>() as u32;

    /// No error: what the caller passes to be filled.
    pub const fn empty() -> Self {
        Self {
            size: Self::SIZE_1_0,
            vendor_code: 0,
            retry_after_ms: 0,
            message: Str::EMPTY,
            hint: Str::EMPTY,
            key: Str::EMPTY,
            private_data: ptr::null_mut(),
            release: None,
        }
    }

    /// Fills an error that is owned by these texts.
    pub fn fill(&mut self, vendor_code: i32, retry_after_ms: u64, [message, hint, key]: [String; 3]) {
        let owner = Box::new([message, hint, key]);
        self.vendor_code = vendor_code;
        self.retry_after_ms = retry_after_ms;
        // Moving the box does not move the bytes of its texts.
        [self.message, self.hint, self.key] = [Str::borrow(&owner[0]), Str::borrow(&owner[1]), Str::borrow(&owner[2])];
        self.private_data = Box::into_raw(owner).cast();
        self.release = Some(release_error);
    }
}

impl Drop for Error {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: `release` is there, so the texts were not given back, and self is not used again.
            unsafe { release(self) }
        }
    }
}

unsafe extern "C" fn release_error(error: *mut Error) {
    // SAFETY: called once by the holder with a struct that `fill` filled: `private_data` is its box.
    unsafe {
        drop(Box::from_raw((*error).private_data.cast::<[String; 3]>()));
        // `write` and no assignment, which would release the old value again.
        let size = (*error).size;
        ptr::write(error, Error::empty());
        (*error).size = size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_errors_are_given_back_once() {
        let buf = Buf::from_vec(b"control".to_vec());
        // SAFETY: made by from_vec.
        assert_eq!(unsafe { buf.as_slice() }, b"control");
        drop(buf);
        drop(Buf::from_vec(Vec::new()));
        let mut error = Error::empty();
        error.fill(45009, 1500, ["too many calls".into(), String::new(), "url".into()]);
        // SAFETY: filled from Rust strings, not released yet.
        unsafe {
            assert_eq!(error.message.as_str(), Ok("too many calls"));
            assert_eq!(error.hint.as_str(), Ok(""));
            assert_eq!(error.key.to_text(2), "ur…");
            (error.release.expect("filled"))(&raw mut error);
        }
        assert!(error.release.is_none() && error.message.ptr.is_null());
    }

    #[test]
    fn a_cut_text_ends_at_a_character() {
        let text = Str::borrow("会员会员");
        // SAFETY: borrowed from a static text.
        assert_eq!(unsafe { text.to_text(7) }, "会员…");
        // SAFETY: an empty text may have a null pointer.
        assert_eq!(unsafe { Str::EMPTY.as_str() }, Ok(""));
    }
}
