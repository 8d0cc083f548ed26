//! The files and folders under a folder, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// The files and folders under a folder: paths relative to it, and the bytes of each file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tree {
    /// `None` for a folder.
    pub entries: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl Tree {
    /// Reads a folder.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(root.join(&folder))? {
                let entry = entry?;
                let path = folder.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    folders.push(path.clone());
                    tree.entries.insert(path, None);
                } else {
                    tree.entries.insert(path, Some(fs::read(entry.path())?));
                }
            }
        }
        Ok(tree)
    }

    /// Makes a folder hold this tree. Files that are as they should be are not touched, and keep their times.
    ///
    /// # Errors
    /// Where the folder cannot be read or written.
    pub fn restore(&self, root: &Path) -> io::Result<()> {
        let there = Self::read(root)?;
        // What is in a folder comes after it, so backwards when removing.
        for (path, content) in there.entries.iter().rev().filter(|(path, _)| !self.entries.contains_key(*path)) {
            match content {
                None => fs::remove_dir(root.join(path))?,
                Some(_) => fs::remove_file(root.join(path))?,
            }
        }
        for (path, content) in self.entries.iter().filter(|(path, content)| there.entries.get(*path) != Some(*content)) {
            match content {
                None => fs::create_dir(root.join(path))?,
                Some(bytes) => fs::write(root.join(path), bytes)?,
            }
        }
        Ok(())
    }

    /// The same number for the same tree.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Where two trees differ, a line for each path.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let paths: BTreeSet<_> = self.entries.keys().chain(other.entries.keys()).collect();
        let differ = paths.into_iter().filter(|path| self.entries.get(*path) != other.entries.get(*path));
        let bytes = |tree: &Self, path| match tree.entries.get(path) {
            None => "missing".to_owned(),
            Some(None) => "a folder".to_owned(),
            Some(Some(content)) => format!("{} bytes", content.len()),
        };
        differ.map(|path| format!("{}: {} / {}", path.display(), bytes(self, path), bytes(other, path))).collect()
    }
}
