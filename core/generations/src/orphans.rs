//! Removing what nobody needs any more.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::warn;

use crate::durable::{TABLE, TEMPORARY, entries, failed, parent, remove_file, sync_folder};
use crate::layout::fence_of;
use crate::{GenerationError, GenerationRef, Manifest, People, SegmentFile};

/// What has to stay, beside what readers have pinned.
#[derive(Debug, Clone, Default)]
pub struct LiveSet {
    /// The head; none before the first generation.
    pub head: Option<GenerationRef>,
    /// Generations that stay, counted from the head backwards; at least 1.
    pub keep: usize,
    /// Segments that the ledger names and that no generation has taken in.
    pub segments: Vec<SegmentFile>,
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest generation that stays on account of the head; none where there is no head.
    pub oldest: Option<u64>,
}

pub(crate) fn remove(people: &People, fence: u64, live: &LiveSet) -> Result<Removed, GenerationError> {
    let state = people.state();
    let kept = match &live.head {
        Some(head) => people.chain(head, live.keep.max(1))?,
        None => Vec::new(),
    };
    let kept: Vec<Manifest> = kept.into_iter().map(|(_, manifest)| manifest).collect();
    let mut needed = HashSet::new();
    for manifest in &kept {
        need(&mut needed, people, manifest);
    }
    let segments = live.segments.iter().flat_map(SegmentFile::files);
    needed.extend(segments.map(|file| state.people().join(&file.path)));

    // The locks are held to the end, so that nobody pins what is about to go.
    let mut locks = Vec::new();
    for folder in entries(&state.generations())? {
        let Some(number) = number_of(&folder).filter(|number| kept.iter().all(|manifest| manifest.number != *number)) else {
            continue;
        };
        let lock = File::open(&folder).map_err(failed("open", &folder))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => locks.push(lock),
            Err(Errno::WOULDBLOCK) => {
                for manifest in Manifest::all_in(state, people.keys(), number)? {
                    need(&mut needed, people, &manifest);
                }
            }
            Err(error) => return Err(failed("lock", &folder)(error.into()).into()),
        }
    }

    let mut removed = Removed { oldest: kept.iter().map(|manifest| manifest.number).min(), ..Removed::default() };
    let generations = entries(&state.generations())?;
    // Manifests go first, for good, so that none is left that names a file that is gone.
    for folder in &generations {
        let before = removed.files;
        for path in entries(folder)?.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
            remove_one(path, fence, &needed, &mut removed)?;
        }
        if removed.files > before {
            sync_folder(folder, &TABLE)?;
        }
    }
    for folder in generations.iter().chain(&entries(&state.segments())?) {
        for path in entries(folder)? {
            remove_one(&path, fence, &needed, &mut removed)?;
        }
    }
    let head = live.head.as_ref().map_or(0, |head| head.number);
    for folder in generations.iter().filter(|folder| number_of(folder).is_some_and(|number| number < head)) {
        // Fails, as it should, where something is left in it.
        let _ = std::fs::remove_dir(folder);
    }
    remove_scratch(people)?;
    Ok(removed)
}

/// Marks all that a manifest needs, and the manifest.
fn need(needed: &mut HashSet<PathBuf>, people: &People, manifest: &Manifest) {
    let state = people.state();
    needed.insert(state.generation(manifest.number).join(manifest.file_name()));
    needed.extend(manifest.files().map(|file| state.people().join(&file.path)));
}

fn remove_one(path: &Path, fence: u64, needed: &HashSet<PathBuf>, removed: &mut Removed) -> Result<(), GenerationError> {
    if needed.contains(path) {
        return Ok(());
    }
    match path.file_name().and_then(|name| name.to_str()).and_then(fence_of) {
        Some(written) if written < fence => {
            let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            remove_file(path)?;
            removed.files += 1;
            removed.bytes += bytes;
        }
        Some(_) => {}
        None => warn!(path = %path.display(), "a file that is none of ours lies in the state and is left alone"),
    }
    Ok(())
}

/// What a crash in the moment between making a scratch file and unlinking it has left, and keys that
/// were never given their name.
fn remove_scratch(people: &People) -> Result<(), GenerationError> {
    let state = people.state();
    let mine = format!("{}-", std::process::id());
    let is_mine = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&mine));
    for path in entries(&state.tmp())?.iter().filter(|path| !is_mine(path)) {
        remove_file(path)?;
    }
    let keys = state.keys();
    let is_half = |path: &PathBuf| {
        let (text, keys) = (path.to_string_lossy(), keys.to_string_lossy());
        text.starts_with(&*keys) && text.ends_with(TEMPORARY)
    };
    for path in entries(parent(&keys))?.iter().filter(|path| is_half(path)) {
        remove_file(path)?;
    }
    Ok(())
}

fn number_of(folder: &Path) -> Option<u64> {
    folder.file_name()?.to_str()?.parse().ok()
}
