//! The folder, and a file in it for each task: `put` is the place for your own way of handing a task
//! over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use reunion_sdk::{ErrorClass, PluginError};

const FILE_MODE: u32 = 0o600;

/// The folder, open, so that what is put there can be made durable.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    open: File,
}

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    /// Invalid config where there is none, unauthorized where it may not be entered.
    pub fn open(path: &Path) -> Result<Self, PluginError> {
        let open = File::open(path).map_err(|error| folder_error(path, &error))?;
        let is_dir = open.metadata().is_ok_and(|metadata| metadata.is_dir());
        if !is_dir {
            return Err(folder_error(path, &ErrorKind::NotADirectory.into()));
        }
        Ok(Self { path: path.to_owned(), open })
    }

    /// Puts a file there, which appears whole or not at all. A task that was pushed before gets the
    /// same file again, so that it reaches the member once.
    ///
    /// # Errors
    /// Of the file system. The task was surely not taken then.
    pub fn put(&self, id: &str, task: &[u8]) -> io::Result<()> {
        let part = self.path.join(format!(".{id}.part"));
        let put = write(&part, task)
            .and_then(|()| fs::rename(&part, self.path.join(format!("{id}.json"))));
        if put.is_err() {
            // What it failed with counts, and not what tidying up comes to.
            let _ = fs::remove_file(&part);
        }
        put
    }

    /// Makes what was put there outlive a power cut.
    ///
    /// # Errors
    /// Of the file system. Nobody knows then what becomes of the files.
    pub fn settle(&self) -> io::Result<()> {
        self.open.sync_all()
    }
}

fn write(part: &Path, task: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(part)?;
    file.write_all(task)?;
    file.sync_all()
}

/// What cannot be written to says so when a file is put there: a task is put off then.
fn folder_error(path: &Path, error: &io::Error) -> PluginError {
    let path = path.display();
    let (class, message, hint) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => (
            ErrorClass::InvalidConfig,
            format!("there is no folder {path}"),
            "make the folder, or correct `dir`",
        ),
        ErrorKind::PermissionDenied => (
            ErrorClass::Unauthorized,
            format!("the folder {path} may not be entered"),
            "give the user that runs the daemon the right to write there",
        ),
        _ => (
            ErrorClass::Unavailable,
            format!("the folder {path} cannot be reached: {error}"),
            "look at the disk or the share that it lies on",
        ),
    };
    PluginError::new(class, message).key("dir").hint(hint)
}
