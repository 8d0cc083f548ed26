//! Where plugins are looked for.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use reunion_model::plugin::{Manifest, PluginError, PluginKind};
use serde_json::Value;

use crate::library::{LoadError, Plugin, Stamp};
use crate::quarantine::{self, Quarantined};
use crate::supervise::{self, Component, ComponentSpec, Health, Part, RemoteChannel, RemoteSource, ScanError, Supervisor};
use crate::{ChannelConnector, SourceConnector};

const KINDS: [PluginKind; 2] = [PluginKind::Source, PluginKind::Channel];
/// Where the package installs them.
const INSTALLED: &str = "/usr/lib/reunion/plugins";
const NAME_CHARS_MAX: usize = 64;

/// The folders that plugins are looked for in, the first that has one winning, and how they are run.
#[derive(Debug, Clone)]
pub struct Plugins {
    dirs: Vec<PathBuf>,
    hosting: Arc<Hosting>,
}

/// How plugins are looked at and run.
#[derive(Debug, Default)]
struct Hosting {
    /// The program that can be a worker. None: all that is done in this process.
    worker: Option<PathBuf>,
    /// Folders that components are to write to may be made.
    makes_folders: bool,
    /// What was found, by its file.
    found: Mutex<HashMap<PathBuf, Plugin>>,
    supervisor: Supervisor,
}

/// One library that looks like a plugin.
#[derive(Debug)]
pub struct Listed {
    /// Its file.
    pub path: PathBuf,
    /// By the file's name.
    pub kind: PluginKind,
    /// By the file's name, underscores for dashes.
    pub name: String,
    /// The file of an earlier folder that is used in its place.
    pub shadowed_by: Option<PathBuf>,
    /// What it says of itself, or why it cannot be used.
    pub manifest: Result<Manifest, LoadError>,
}

/// Everywhere that a plugin was looked for, and what was there.
#[derive(Debug)]
pub struct Trace(Vec<(PathBuf, io::Error)>);

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (path, error)) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            match error.kind() {
                io::ErrorKind::NotFound => write!(f, "{separator}{}", path.display())?,
                _ => write!(f, "{separator}{} ({error})", path.display())?,
            }
        }
        if self.0.is_empty() { f.write_str("it in no folder") } else { Ok(()) }
    }
}

impl Plugins {
    /// These folders and no others. Libraries are loaded into this process.
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs, hosting: Arc::default() }
    }

    /// The folders of `[plugins] path`, then the one of the executable, `plugins/` in that, and
    /// `/usr/lib/reunion/plugins`. Libraries are looked at, and components run, in processes of their own: this
    /// program must be one that has [`crate::worker_main`] as the command [`crate::WORKER_COMMAND`]. What is to be
    /// remembered of them is in the folder `memory`.
    /// Where `makes_folders` is false, folders that components would write to are not made for them: for commands
    /// that change nothing.
    pub fn standard(configured: &[PathBuf], memory: Option<PathBuf>, makes_folders: bool) -> Self {
        // This program also where its file was replaced since it was started.
        Self::apart(Self::standard_dirs(configured), "/proc/self/exe".into(), memory, makes_folders)
    }

    /// These folders, and this program for the workers: one of the same build.
    pub fn apart(dirs: Vec<PathBuf>, worker: PathBuf, memory: Option<PathBuf>, makes_folders: bool) -> Self {
        let hosting = Hosting { worker: Some(worker), makes_folders, found: Mutex::default(), supervisor: Supervisor::new(memory) };
        Self { dirs, hosting: Arc::new(hosting) }
    }

    fn standard_dirs(configured: &[PathBuf]) -> Vec<PathBuf> {
        let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
        let beside = beside.into_iter().flat_map(|dir| [dir.clone(), dir.join("plugins")]);
        configured.iter().cloned().chain(beside).chain([PathBuf::from(INSTALLED)]).collect()
    }

    /// The folders, in the order in which they are looked in.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Finds a plugin, and sees that it can be used. A library that is found and cannot be is an error: none
    /// further down the path is tried in its place.
    ///
    /// # Errors
    /// Where there is none, with everywhere that was looked; where it cannot be used, with why.
    pub fn find(&self, kind: PluginKind, name: &str) -> Result<Plugin, LoadError> {
        self.find_pinned(kind, name, None)
    }

    /// The same, where the library must be the one that has this sha256 (in hex). None of another's code is run.
    ///
    /// # Errors
    /// As [`Plugins::find`].
    pub fn find_pinned(&self, kind: PluginKind, name: &str, sha256: Option<&str>) -> Result<Plugin, LoadError> {
        let file_name = file_name(kind, name).ok_or_else(|| LoadError::Name { name: name.to_owned() })?;
        let mut trace = Vec::new();
        for path in self.dirs.iter().map(|dir| dir.join(&file_name)) {
            match fs::metadata(&path) {
                Ok(_) => {
                    let found = pinned(&path, sha256).and_then(|()| self.look(&path, kind, name));
                    return found.map_err(|error| after(error, trace));
                }
                Err(error) => trace.push((path, error)),
            }
        }
        Err(LoadError::NotFound { kind, name: name.to_owned(), trace: Trace(trace) })
    }

    /// The plugin that this library is.
    fn look(&self, path: &Path, kind: PluginKind, name: &str) -> Result<Plugin, LoadError> {
        let Some(worker) = self.worker() else { return Plugin::load(path, kind, name) };
        // The whole path, by which a worker in another folder finds it too.
        let path = &fs::canonicalize(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
        let stamp = Stamp::of(path)?;
        let known = self.found().get(path).filter(|plugin| plugin.stamp() == stamp).cloned();
        if let Some(plugin) = known {
            return Ok(plugin);
        }
        let dir = self.hosting.supervisor.dir();
        if let Some(quarantined) = dir.and_then(|dir| quarantine::find(dir, path, stamp)) {
            return Err(LoadError::Quarantined { path: path.clone(), quarantined });
        }
        let manifest = supervise::scan(worker, kind, name, path).map_err(|error| self.not_scanned(path, stamp, error))?;
        let plugin = Plugin::scanned(path, stamp, manifest);
        self.found().insert(path.clone(), plugin.clone());
        Ok(plugin)
    }

    fn found(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Plugin>> {
        self.hosting.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a library could not be looked at. One that crashed is remembered.
    fn not_scanned(&self, path: &Path, stamp: Stamp, error: ScanError) -> LoadError {
        let path = path.to_owned();
        match error {
            ScanError::Refused(why) => LoadError::Refused { path, why },
            ScanError::System(source) => LoadError::Scan { path, source },
            ScanError::Crashed(why) => match Quarantined::new(&path, stamp, &why) {
                Ok(quarantined) => {
                    if let Some(Err(error)) = self.hosting.supervisor.dir().map(|dir| quarantine::add(dir, &path, quarantined.clone())) {
                        tracing::debug!("what a library did cannot be written down: {error}");
                    }
                    LoadError::Quarantined { path, quarantined }
                }
                Err(source) => LoadError::Io { path, source },
            },
        }
    }

    /// Looks again at libraries that crashed.
    ///
    /// # Errors
    /// Where the folder that remembers them cannot be written.
    pub fn forget_quarantine(&self) -> io::Result<()> {
        self.hosting.supervisor.dir().map_or(Ok(()), quarantine::clear)
    }

    /// What is known of a component's worker, in this process or another; `None` where nothing is.
    pub fn health(&self, kind: PluginKind, component: &str, part: Part) -> Option<Health> {
        self.hosting.supervisor.dir().and_then(|dir| Health::read(dir, kind, component, part))
    }

    /// Makes a source, and starts its worker. `config` is its `with` table, with its secrets in it.
    ///
    /// # Errors
    /// Invalid config where the table does not fit the schema, or the plugin says so; internal where it fails, and
    /// unavailable where it has failed so often that it is left alone for now.
    pub fn source(&self, plugin: &Plugin, spec: ComponentSpec, config: Value) -> Result<Box<dyn SourceConnector>, PluginError> {
        Ok(Box::new(RemoteSource(Component::make(self, plugin, spec, config)?)))
    }

    /// Makes a channel, as [`Plugins::source`] does a source.
    ///
    /// # Errors
    /// As [`Plugins::source`].
    pub fn channel(&self, plugin: &Plugin, spec: ComponentSpec, config: Value) -> Result<Box<dyn ChannelConnector>, PluginError> {
        Ok(Box::new(RemoteChannel::new(Component::make(self, plugin, spec, config)?)?))
    }

    /// Whether folders may be made for components.
    pub(crate) fn makes_folders(&self) -> bool {
        self.hosting.makes_folders
    }

    /// The program that can be a worker.
    pub(crate) fn worker(&self) -> Option<&Path> {
        self.hosting.worker.as_deref()
    }

    pub(crate) fn supervisor(&self) -> &Supervisor {
        &self.hosting.supervisor
    }

    /// Every library in the folders whose name is that of a plugin, by kind and name. Folders that
    /// cannot be read are passed over.
    pub fn list(&self) -> Vec<Listed> {
        let mut found = BTreeMap::<(PluginKind, String), Vec<PathBuf>>::new();
        for dir in &self.dirs {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            for (key, path) in entries.filter_map(|entry| Some((kind_and_name(entry.file_name().to_str()?)?, entry.path()))) {
                let paths = found.entry(key).or_default();
                // A folder may be on the path twice.
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        let listed = |((kind, name), paths): ((PluginKind, String), Vec<PathBuf>)| {
            let first = paths[0].clone();
            paths.into_iter().map(move |path| Listed {
                manifest: self.look(&path, kind, &name).map(|plugin| plugin.manifest().clone()),
                shadowed_by: (path != first).then(|| first.clone()),
                name: name.clone(),
                path,
                kind,
            })
        };
        found.into_iter().flat_map(listed).collect()
    }
}

/// The library must be the one that has this sha256.
fn pinned(path: &Path, sha256: Option<&str>) -> Result<(), LoadError> {
    let Some(wanted) = sha256 else { return Ok(()) };
    let found = quarantine::sha256(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    if found.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(LoadError::Pinned { path: path.to_owned(), wanted: wanted.to_owned(), found })
}

/// An error with the places that were looked at before.
fn after(error: LoadError, looked: Vec<(PathBuf, io::Error)>) -> LoadError {
    if looked.is_empty() { error } else { LoadError::After { looked: Trace(looked), source: Box::new(error) } }
}

/// The file that holds a plugin; `None` for a name that none can have.
pub fn file_name(kind: PluginKind, name: &str) -> Option<String> {
    let valid = !name.is_empty()
        && name.len() <= NAME_CHARS_MAX
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
    valid.then(|| format!("libreunion_{}_{}.so", kind.name(), name.replace('-', "_")))
}

fn kind_and_name(file_name: &str) -> Option<(PluginKind, String)> {
    let stem = file_name.strip_prefix("libreunion_")?.strip_suffix(".so")?;
    KINDS.into_iter().find_map(|kind| Some((kind, stem.strip_prefix(kind.name())?.strip_prefix('_')?.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files_belong_together() {
        assert_eq!(file_name(PluginKind::Source, "my-erp").as_deref(), Some("libreunion_source_my_erp.so"));
        assert_eq!(kind_and_name("libreunion_channel_file.so"), Some((PluginKind::Channel, "file".into())));
        for name in ["", "../x", "File", "a b", &"x".repeat(65)] {
            assert!(matches!(Plugins::new(Vec::new()).find(PluginKind::Source, name), Err(LoadError::Name { .. })), "{name}");
        }
        for file in ["libreunion_file.so", "libreunion_sink_file.so", "libreunion_source_file.so.1", "reunion_source_file.so"] {
            assert_eq!(kind_and_name(file), None);
        }
    }

    #[test]
    fn the_standard_path_has_the_configured_folders_first() {
        let dirs = Plugins::standard(&["/srv/plugins".into()], None, false).dirs;
        assert_eq!((dirs.len(), dirs[0].as_path(), dirs[3].as_path()), (4, Path::new("/srv/plugins"), Path::new(INSTALLED)));
        assert!(dirs[2].starts_with(&dirs[1]));
    }

    #[test]
    fn a_plugin_that_is_not_there_is_reported_with_the_whole_search() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "no folder").unwrap();
        let error = Plugins::new(vec!["/nowhere/a".into(), file.clone()]).find(PluginKind::Channel, "messenger").expect_err("not there");
        let text = error.to_string().replace(file.to_str().unwrap(), "/tmp/file");
        insta::assert_snapshot!(text, @r#"there is no channel plugin "messenger"; looked for /nowhere/a/libreunion_channel_messenger.so, /tmp/file/libreunion_channel_messenger.so (Not a directory (os error 20)); install it, or add its folder to [plugins] path"#);
        assert!(Plugins::new(vec![file]).list().is_empty());
    }

    #[test]
    fn what_is_no_library_is_listed_with_the_reason() {
        let [first, second] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for dir in [&first, &second] {
            fs::write(dir.path().join("libreunion_source_broken.so"), "text").unwrap();
        }
        fs::create_dir(second.path().join("libreunion_channel_folder.so")).unwrap();
        let plugins = Plugins::new(vec![first.path().into(), second.path().into(), first.path().into()]);
        let listed = plugins.list();
        let summary: Vec<_> = listed.iter().map(|one| (one.name.as_str(), one.shadowed_by.is_some(), one.manifest.is_ok())).collect();
        assert_eq!(summary, [("broken", false, false), ("broken", true, false), ("folder", false, false)]);
        let error = plugins.find(PluginKind::Channel, "folder").expect_err("no library").to_string();
        let text = error.replace(second.path().to_str().unwrap(), "/second").replace(first.path().to_str().unwrap(), "/first");
        insta::assert_snapshot!(text, @"/second/libreunion_channel_folder.so cannot be loaded as a library; rebuild or reinstall it for this machine (looked before for /first/libreunion_channel_folder.so)");
        assert!(matches!(plugins.find(PluginKind::Source, "broken"), Err(LoadError::Open { .. })));
    }
}
