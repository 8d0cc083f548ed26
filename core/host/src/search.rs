//! Where plugins are looked for.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use reunion_model::plugin::{Manifest, PluginKind};

use crate::library::{self, LoadError, Plugin};

const KINDS: [PluginKind; 2] = [PluginKind::Source, PluginKind::Channel];
/// Where the package installs them.
const INSTALLED: &str = "/usr/lib/reunion/plugins";
const NAME_CHARS_MAX: usize = 64;

/// The folders that plugins are looked for in, the first that has one winning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugins {
    dirs: Vec<PathBuf>,
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
    /// These folders and no others.
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// The folders of `[plugins] path`, then the one of the executable, `plugins/` in that, and
    /// `/usr/lib/reunion/plugins`.
    pub fn standard(configured: &[PathBuf]) -> Self {
        let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
        let beside = beside.into_iter().flat_map(|dir| [dir.clone(), dir.join("plugins")]);
        Self::new(configured.iter().cloned().chain(beside).chain([PathBuf::from(INSTALLED)]).collect())
    }

    /// The folders, in the order in which they are looked in.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Loads a plugin. A library that is found and cannot be used is an error: none further down the
    /// path is tried in its place.
    ///
    /// # Errors
    /// Where there is none, with everywhere that was looked; where it cannot be used, with why.
    pub fn find(&self, kind: PluginKind, name: &str) -> Result<Plugin, LoadError> {
        let file_name = file_name(kind, name).ok_or_else(|| LoadError::Name { name: name.to_owned() })?;
        let mut trace = Vec::new();
        for path in self.dirs.iter().map(|dir| dir.join(&file_name)) {
            match fs::metadata(&path) {
                Ok(_) => return Plugin::load(&path, kind, name),
                Err(error) => trace.push((path, error)),
            }
        }
        Err(LoadError::NotFound { kind, name: name.to_owned(), trace: Trace(trace) })
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
                manifest: library::manifest_of(&path),
                shadowed_by: (path != first).then(|| first.clone()),
                name: name.clone(),
                path,
                kind,
            })
        };
        found.into_iter().flat_map(listed).collect()
    }
}

/// The file that holds a plugin; `None` for a name that none can have.
fn file_name(kind: PluginKind, name: &str) -> Option<String> {
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
        let dirs = Plugins::standard(&["/srv/plugins".into()]).dirs;
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
        assert!(matches!(plugins.find(PluginKind::Channel, "folder"), Err(LoadError::Open { .. })));
        assert!(matches!(plugins.find(PluginKind::Source, "broken"), Err(LoadError::Open { .. })));
    }
}
