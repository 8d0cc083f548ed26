//! What a power cut leaves of a folder.
//!
//! `powercut/journal.c`, preloaded, journals what a program does to the files under a folder. [`Disk`]
//! plays a journal on a model of a disk that keeps apart what was promised to last and what was not, and
//! [`Disk::cut`] gives the tree that a power cut now could leave.
//!
//! The model promises what POSIX does and no more:
//! - fsync and fdatasync of a file make its bytes and its length last, but not its name.
//! - fsync of a folder makes the names in it last, but not what the files hold, nor its own name.
//! - A rename happens whole or not at all. Everything else may last, not last, or (a write) last in part,
//!   in whole sectors, in any order; so may the names in a folder under [`Mode::Torn`].
//! - Memory that is mapped and shared is never promised.

mod journal;
mod tree;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io::{self, Error};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use journal::{Record, build_library, read_journal, watch};
pub use tree::Tree;

use crate::generator::Random;
use journal::{O_CREAT, O_TRUNC};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What a cut does with what was not promised to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// All of it is gone.
    Promised,
    /// The names are there, and the files are as they were synced last, if ever: a file system that
    /// writes its folders at once and data late.
    Names,
    /// Of each file a random part of the writes lasts, of each folder the names up to some moment.
    Part,
    /// As [`Mode::Part`], and writes last in part, names in any order, and mapped memory is noise.
    Torn,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Promised, Self::Names, Self::Part, Self::Torn];
}

type NodeId = usize;

/// A change of a file that may not last.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Arc<[u8]> },
    Resize(usize),
}

#[derive(Debug, Default)]
struct FileNode {
    lasting: Vec<u8>,
    pending: Vec<Change>,
    mapped: bool,
}

impl FileNode {
    fn settle(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.lasting);
        }
    }

    fn now(&self) -> Vec<u8> {
        let mut content = self.lasting.clone();
        self.pending.iter().for_each(|change| change.apply(&mut content));
        content
    }

    fn after(&self, mode: Mode, random: &mut Random) -> Vec<u8> {
        let mut content = self.lasting.clone();
        if mode == Mode::Torn && self.mapped {
            content = self.now();
            content.iter_mut().for_each(|byte| *byte = random.below(256) as u8);
        }
        for change in &self.pending {
            match mode {
                Mode::Promised | Mode::Names => {}
                Mode::Part if random.chance(0.5) => change.apply(&mut content),
                Mode::Torn if random.chance(0.7) => change.apply_torn(&mut content, random),
                Mode::Part | Mode::Torn => {}
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Resize(bytes) => content.resize(*bytes, 0),
            Self::Write { offset, data } => put(content, *offset, data),
        }
    }

    /// Applies only the sectors that the dice choose: a run at the beginning, a run at the end, or any.
    fn apply_torn(&self, content: &mut Vec<u8>, random: &mut Random) {
        let Self::Write { offset, data } = self else { return self.apply(content) };
        let mut bounds = vec![0];
        let first = SECTOR_BYTES - offset % SECTOR_BYTES;
        bounds.extend((first..data.len()).step_by(SECTOR_BYTES));
        bounds.push(data.len());
        let sectors = bounds.len() - 1;
        let (style, edge) = (random.below(3), random.below(sectors + 1));
        for sector in 0..sectors {
            let lasts = match style {
                0 => sector < edge,
                1 => sector >= edge,
                _ => random.chance(0.5),
            };
            if lasts {
                put(content, offset + bounds[sector], &data[bounds[sector]..bounds[sector + 1]]);
            }
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

/// A folder's names, and what they name.
type Names = BTreeMap<OsString, NodeId>;

#[derive(Debug, Default)]
struct FolderNode {
    lasting: Names,
    now: Names,
}

#[derive(Debug)]
enum Node {
    File(FileNode),
    Folder(FolderNode),
}

/// A place for a name, and what the name means from now on, or that it means nothing.
#[derive(Debug, Clone)]
struct Slot {
    folder: NodeId,
    name: OsString,
    node: Option<NodeId>,
}

impl Slot {
    fn assign(&self, names: &mut Names) {
        match self.node {
            Some(node) => names.insert(self.name.clone(), node),
            None => names.remove(&self.name),
        };
    }
}

/// A change of names that happens whole or not at all.
#[derive(Debug, Clone)]
struct NameChange(Vec<Slot>);

impl NameChange {
    fn is_in(&self, folders: &BTreeSet<NodeId>) -> bool {
        self.0.iter().any(|slot| folders.contains(&slot.folder))
    }

    /// The folder by whose order the change lasts: that of the last slot, which a rename goes to.
    fn folder(&self) -> NodeId {
        self.0.last().map_or(ROOT, |slot| slot.folder)
    }
}

/// A model of the disk under a folder.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    /// Changes of names that were not promised to last, in their order.
    pending: Vec<NameChange>,
    open: HashMap<u64, NodeId>,
}

/// The folder that the model is of.
const ROOT: NodeId = 0;

impl Disk {
    /// A disk with this tree under `root`, all of which lasts.
    ///
    /// # Errors
    /// Where the tree does not hang together.
    pub fn new(root: &Path, tree: &Tree) -> io::Result<Self> {
        let nodes = vec![Node::Folder(FolderNode::default())];
        let mut disk = Self { root: root.to_owned(), nodes, pending: Vec::new(), open: HashMap::new() };
        for (path, content) in &tree.entries {
            let node = match content {
                None => Node::Folder(FolderNode::default()),
                Some(bytes) => Node::File(FileNode { lasting: bytes.clone(), ..FileNode::default() }),
            };
            let node = disk.add(node);
            let slot = disk.slot(&root.join(path), Some(node))?;
            disk.rename_all(vec![slot]);
        }
        disk.settle_all();
        Ok(disk)
    }

    /// Plays one record.
    ///
    /// # Errors
    /// Where the record does not fit what was played before: the journal missed something.
    pub fn play(&mut self, record: &Record) -> io::Result<()> {
        match record {
            Record::Open { handle, flags, path } => {
                let node = self.opened(path, *flags)?;
                self.open.insert(*handle, node);
            }
            Record::Write { handle, offset, data } => {
                let data = Arc::clone(data);
                self.file(*handle)?.pending.push(Change::Write { offset: *offset, data });
            }
            Record::Resize { handle, bytes } => self.file(*handle)?.pending.push(Change::Resize(*bytes)),
            Record::ResizeAt { path, bytes } => {
                let node = self.find(path)?;
                self.file_node(node)?.pending.push(Change::Resize(*bytes));
            }
            Record::Map { handle } => self.file(*handle)?.mapped = true,
            Record::Sync { handle } => {
                let node = self.handle(*handle)?;
                self.settle(node);
            }
            Record::SyncAll => self.settle_all(),
            Record::Rename { flags, from, to } => {
                if flags & 2 != 0 {
                    return Err(Error::other("names are exchanged, which the model does not know"));
                }
                let node = self.find(from)?;
                self.rename_all(vec![self.slot(from, None)?, self.slot(to, Some(node))?]);
            }
            Record::Link { from, to } => {
                let node = self.find(from)?;
                self.rename_all(vec![self.slot(to, Some(node))?]);
            }
            Record::Unlink { path } => {
                self.find(path)?;
                self.rename_all(vec![self.slot(path, None)?]);
            }
            Record::MakeFolder { path } => {
                let node = self.add(Node::Folder(FolderNode::default()));
                self.rename_all(vec![self.slot(path, Some(node))?]);
            }
        }
        Ok(())
    }

    /// The tree as programs see it.
    pub fn now(&self) -> Tree {
        self.tree(&|folder| &self.folder(folder).now, |file| file.now())
    }

    /// The paths of files that were mapped: programs may see other bytes in them than [`Disk::now`] says.
    pub fn mapped(&self) -> BTreeSet<PathBuf> {
        let mut paths = BTreeSet::new();
        self.walk(&|folder| &self.folder(folder).now, |path, node| {
            if matches!(node, Node::File(FileNode { mapped: true, .. })) {
                paths.insert(path.to_owned());
            }
        });
        paths
    }

    /// A tree that a power cut now could leave. The same seed gives the same tree.
    pub fn cut(&self, mode: Mode, seed: u64) -> Tree {
        let mut random = Random::new(seed);
        let names = self.names_after(mode, &mut random);
        let random = RefCell::new(random);
        self.tree(&|folder| &names[&folder], |file| file.after(mode, &mut random.borrow_mut()))
    }

    /// The names of every folder after a cut.
    fn names_after(&self, mode: Mode, random: &mut Random) -> HashMap<NodeId, Names> {
        let folders = self.nodes.iter().enumerate().filter_map(|(at, node)| match node {
            Node::Folder(folder) => Some((at, folder.lasting.clone())),
            Node::File(_) => None,
        });
        let mut names: HashMap<NodeId, Names> = folders.collect();
        // How many changes of each folder last, for modes in which they last in their order.
        let mut left: HashMap<NodeId, usize> = HashMap::new();
        if mode == Mode::Part {
            let mut changes: BTreeMap<NodeId, usize> = BTreeMap::new();
            for change in &self.pending {
                *changes.entry(change.folder()).or_default() += 1;
            }
            left = changes.into_iter().map(|(folder, changes)| (folder, random.below(changes + 1))).collect();
        }
        for change in &self.pending {
            let lasts = match mode {
                Mode::Promised => false,
                Mode::Names => true,
                Mode::Torn => random.chance(0.5),
                Mode::Part => {
                    let left = left.entry(change.folder()).or_default();
                    *left > 0 && {
                        *left -= 1;
                        true
                    }
                }
            };
            if lasts {
                for slot in &change.0 {
                    slot.assign(names.entry(slot.folder).or_default());
                }
            }
        }
        names
    }

    fn opened(&mut self, path: &Path, flags: u64) -> io::Result<NodeId> {
        if let Ok(node) = self.find(path) {
            if flags & O_TRUNC != 0 {
                self.file_node(node)?.pending.push(Change::Resize(0));
            }
            return Ok(node);
        }
        if flags & O_CREAT == 0 {
            return Err(Error::other(format!("{} was opened and is not known", path.display())));
        }
        let node = self.add(Node::File(FileNode::default()));
        self.rename_all(vec![self.slot(path, Some(node))?]);
        Ok(node)
    }

    fn settle(&mut self, node: NodeId) {
        match &mut self.nodes[node] {
            Node::File(file) => file.settle(),
            Node::Folder(_) => {
                // A rename between folders lasts whole, and so does what came before it in both.
                let mut folders = BTreeSet::from([node]);
                loop {
                    let touched = self.pending.iter().filter(|change| change.is_in(&folders));
                    let more: BTreeSet<_> = touched.flat_map(|change| change.0.iter().map(|slot| slot.folder)).collect();
                    if more.is_subset(&folders) {
                        break;
                    }
                    folders.extend(more);
                }
                let (settled, pending) = std::mem::take(&mut self.pending).into_iter().partition(|change| change.is_in(&folders));
                self.pending = pending;
                self.settle_names(settled);
            }
        }
    }

    fn settle_all(&mut self) {
        let settled = std::mem::take(&mut self.pending);
        self.settle_names(settled);
        for node in &mut self.nodes {
            if let Node::File(file) = node {
                file.settle();
            }
        }
    }

    fn settle_names(&mut self, settled: Vec<NameChange>) {
        for slot in settled.into_iter().flat_map(|change| change.0) {
            if let Node::Folder(folder) = &mut self.nodes[slot.folder] {
                slot.assign(&mut folder.lasting);
            }
        }
    }

    fn rename_all(&mut self, slots: Vec<Slot>) {
        for slot in &slots {
            if let Node::Folder(folder) = &mut self.nodes[slot.folder] {
                slot.assign(&mut folder.now);
            }
        }
        self.pending.push(NameChange(slots));
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn folder(&self, node: NodeId) -> &FolderNode {
        match &self.nodes[node] {
            Node::Folder(folder) => folder,
            Node::File(_) => unreachable!("only folders are asked for their names"),
        }
    }

    fn handle(&self, handle: u64) -> io::Result<NodeId> {
        self.open.get(&handle).copied().ok_or_else(|| Error::other(format!("handle {handle} was never opened")))
    }

    fn file(&mut self, handle: u64) -> io::Result<&mut FileNode> {
        let node = self.handle(handle)?;
        self.file_node(node)
    }

    fn file_node(&mut self, node: NodeId) -> io::Result<&mut FileNode> {
        match &mut self.nodes[node] {
            Node::File(file) => Ok(file),
            Node::Folder(_) => Err(Error::other("a folder is written like a file")),
        }
    }

    /// The file or folder that a path names now.
    fn find(&self, path: &Path) -> io::Result<NodeId> {
        let missing = || Error::other(format!("{} is not known", path.display()));
        let inner = path.strip_prefix(&self.root).map_err(Error::other)?;
        inner.iter().try_fold(ROOT, |node, name| match &self.nodes[node] {
            Node::Folder(folder) => folder.now.get(name).copied().ok_or_else(missing),
            Node::File(_) => Err(missing()),
        })
    }

    /// That a path means this from now on.
    fn slot(&self, path: &Path, node: Option<NodeId>) -> io::Result<Slot> {
        let outside = || Error::other(format!("{} is not under the root", path.display()));
        let folder = self.find(path.parent().ok_or_else(outside)?)?;
        if matches!(self.nodes[folder], Node::File(_)) {
            return Err(outside());
        }
        Ok(Slot { folder, name: path.file_name().ok_or_else(outside)?.to_owned(), node })
    }

    fn tree<'a>(&self, names: &impl Fn(NodeId) -> &'a Names, content: impl Fn(&FileNode) -> Vec<u8>) -> Tree {
        let mut tree = Tree::default();
        self.walk(names, |path, node| {
            let content = match node {
                Node::Folder(_) => None,
                Node::File(file) => Some(content(file)),
            };
            tree.entries.insert(path.to_owned(), content);
        });
        tree
    }

    fn walk<'a>(&self, names: &impl Fn(NodeId) -> &'a Names, mut visit: impl FnMut(&Path, &Node)) {
        let mut folders = vec![(PathBuf::new(), ROOT)];
        while let Some((path, folder)) = folders.pop() {
            for (name, node) in names(folder) {
                let path = path.join(name);
                visit(&path, &self.nodes[*node]);
                if matches!(self.nodes[*node], Node::Folder(_)) {
                    folders.push((path, *node));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "/site";

    fn disk(records: Vec<Record>) -> Disk {
        let mut disk = Disk::new(Path::new(SITE), &Tree::default()).unwrap();
        records.iter().for_each(|record| disk.play(record).unwrap());
        disk
    }

    fn at(name: &str) -> PathBuf {
        Path::new(SITE).join(name)
    }

    fn open(handle: u64, name: &str) -> Record {
        Record::Open { handle, flags: O_CREAT, path: at(name) }
    }

    fn write(handle: u64, offset: usize, data: &[u8]) -> Record {
        Record::Write { handle, offset, data: data.into() }
    }

    /// The whole protocol of a file that appears at once: each step, and what lasts after it.
    #[test]
    fn only_what_was_synced_lasts() {
        let steps = [
            (open(1, "a.tmp"), "", "a.tmp="),
            (write(1, 0, b"text"), "", "a.tmp="),
            (Record::Sync { handle: 1 }, "", "a.tmp=text"),
            (Record::Rename { flags: 0, from: at("a.tmp"), to: at("a") }, "", "a=text"),
            (Record::Open { handle: 2, flags: 0, path: SITE.into() }, "", "a=text"),
            (Record::Sync { handle: 2 }, "a=text", "a=text"),
            (write(1, 4, b"!"), "a=text", "a=text"),
            (Record::Unlink { path: at("a") }, "a=text", ""),
            (Record::SyncAll, "", ""),
        ];
        let mut disk = disk(Vec::new());
        for (record, promised, names) in steps {
            disk.play(&record).unwrap();
            assert_eq!(shown(&disk.cut(Mode::Promised, 0)), promised, "{record:?}");
            assert_eq!(shown(&disk.cut(Mode::Names, 0)), names, "{record:?}");
        }
    }

    fn shown(tree: &Tree) -> String {
        let entry = |(path, content): (&PathBuf, &Option<Vec<u8>>)| match content {
            None => format!("{}/", path.display()),
            Some(bytes) => format!("{}={}", path.display(), String::from_utf8_lossy(bytes)),
        };
        tree.entries.iter().map(entry).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_folder_lasts_with_the_names_above_it() {
        let mut disk = disk(vec![
            Record::MakeFolder { path: at("b") },
            open(1, "b/c"),
            write(1, 0, b"text"),
            Record::Sync { handle: 1 },
            Record::Open { handle: 2, flags: 0, path: at("b") },
            Record::Sync { handle: 2 },
        ]);
        assert_eq!(shown(&disk.cut(Mode::Promised, 0)), "", "nobody has synced the folder above");
        disk.play(&Record::Open { handle: 3, flags: 0, path: SITE.into() }).unwrap();
        disk.play(&Record::Sync { handle: 3 }).unwrap();
        assert_eq!(shown(&disk.cut(Mode::Promised, 0)), "b/ b/c=text");
    }

    #[test]
    fn writes_tear_between_sectors() {
        let mut disk = disk(vec![open(1, "a"), write(1, 0, &[b'a'; 2048]), Record::SyncAll]);
        disk.play(&write(1, 100, &[b'b'; 1800])).unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let tree = disk.cut(Mode::Torn, seed);
            let Some(Some(content)) = tree.entries.get(Path::new("a")) else { panic!("it lasts") };
            assert_eq!(content.len(), 2048);
            let written = |range: std::ops::Range<usize>| {
                assert!(content[range.clone()].windows(2).all(|pair| pair[0] == pair[1]), "a sector is torn");
                content[range.start] == b'b'
            };
            seen.insert([written(100..512), written(512..1024), written(1024..1536), written(1536..1900)]);
        }
        assert_eq!(seen.len(), 16, "every combination comes up");
    }

    #[test]
    fn names_last_in_their_order_or_in_any() {
        let records = ["a", "b", "c"].iter().zip(1..).map(|(name, handle)| open(handle, name));
        let disk = disk(records.collect());
        let trees = |mode| (0..100).map(|seed| shown(&disk.cut(mode, seed))).collect::<BTreeSet<_>>();
        assert_eq!(trees(Mode::Part), BTreeSet::from(["", "a=", "a= b=", "a= b= c="].map(String::from)));
        assert_eq!(trees(Mode::Torn).len(), 8);
        assert!(disk.cut(Mode::Torn, 7) == disk.cut(Mode::Torn, 7));
    }

    #[test]
    fn a_journal_that_missed_something_is_noticed() {
        let mut disk = disk(Vec::new());
        assert!(disk.play(&Record::Unlink { path: at("a") }).is_err());
        assert!(disk.play(&write(9, 0, b"x")).is_err());
        assert!(disk.play(&Record::Open { handle: 1, flags: 0, path: at("a") }).is_err());
    }
}
