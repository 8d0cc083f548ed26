//! A plugin's library: opened, its manifest read, its table of functions taken.

use std::ffi::{CStr, c_char, c_int};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use serde_json::Value;

use reunion_abi::{self as abi, ChannelTable, ENTRY_SYMBOL, EntryFn, MANIFEST_SYMBOL, ManifestFn, SourceTable};
use reunion_model::limits::CONTROL_BYTES_MAX;
use reunion_model::plugin::{ErrorClass, Manifest, PluginError, PluginKind};

use crate::channel::InProcessChannel;
use crate::quarantine::Quarantined;
use crate::search::Trace;
use crate::source::InProcessSource;
use crate::{ChannelConnector, SourceConnector, instance, schema};

/// Keeps the library in memory after its last handle is closed (`dlfcn.h`). A library whose threads or
/// thread-locals are alive must not go away.
const RTLD_NODELETE: c_int = 0x1000;

/// Why a plugin cannot be had. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A name that no plugin can have.
    #[error("{name:?} cannot be the name of a plugin: up to 64 lower-case letters, digits, dashes and underscores")]
    Name {
        /// The name.
        name: String,
    },
    /// There is none.
    #[error("there is no {} plugin {name:?}; looked for {trace}; install it, or add its folder to [plugins] path", kind.name())]
    NotFound {
        /// Source or channel.
        kind: PluginKind,
        /// The name.
        name: String,
        /// Everywhere that was looked.
        trace: Trace,
    },
    /// The file is no library of this machine, or one that it needs is missing.
    #[error("{} cannot be loaded as a library; rebuild or reinstall it for this machine", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: libloading::Error,
    },
    /// The file cannot be reached.
    #[error("{} cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The library is no plugin, or one of another major version.
    #[error("{} exports no {symbol}: it is no plugin, or one for another major version of the ABI than {}; reinstall it", path.display(), abi::MAJOR)]
    Symbol {
        /// The file.
        path: PathBuf,
        /// The symbol that is missing.
        symbol: &'static str,
        /// What the system says.
        #[source]
        source: libloading::Error,
    },
    /// The manifest is not what it should be.
    #[error("{} has a manifest that cannot be read: {rule}; report this to its author", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        rule: String,
    },
    /// The plugin needs another version of the ABI.
    #[error(
        "{} ({name} {version}) needs plugin ABI {}.{}, and this program offers {}.0 to {}.{}; {}",
        path.display(), needs[0], needs[1], abi::MAJOR, abi::MAJOR, abi::MINOR,
        if needs[0] < abi::MAJOR { "install a newer version of the plugin" } else { "install an older version of the plugin, or upgrade this program" }
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The plugin's name.
        name: String,
        /// The plugin's own version.
        version: String,
        /// Major and minor version that it needs.
        needs: [u32; 2],
    },
    /// Another plugin than its file's name says.
    #[error("{} says that it is the {} plugin {found_name:?}, and its file's name is that of the {} plugin {name:?}; rename the file", path.display(), found_kind.name(), kind.name())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// By the file's name.
        kind: PluginKind,
        /// By the file's name.
        name: String,
        /// By the manifest.
        found_kind: PluginKind,
        /// By the manifest.
        found_name: String,
    },
    /// It was looked at in another process, and is none of these.
    #[error("{why}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong, as one of the errors here says it.
        why: String,
    },
    /// It brought down the process in which it was looked at.
    #[error(
        "{} crashed when it was looked at: {}; it is not looked at again until it is replaced, or `reunion plugins ls --rescan` is given; report this to its author",
        path.display(), quarantined.why
    )]
    Quarantined {
        /// The file.
        path: PathBuf,
        /// What it did.
        quarantined: Quarantined,
    },
    /// It could not be looked at.
    #[error("no process can be started to look at {}", path.display())]
    Scan {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It is another than the config wants.
    #[error("{} is not the library that the config wants: its sha256 is {found}, and sha256 = \"{wanted}\"", path.display())]
    Pinned {
        /// The file.
        path: PathBuf,
        /// The sha256 that the config names.
        wanted: String,
        /// The file's own.
        found: String,
    },
    /// One of the others, after places where there was none.
    #[error("{source} (looked before for {looked})")]
    After {
        /// The places.
        looked: Trace,
        /// Why the one that was found cannot be used.
        source: Box<LoadError>,
    },
    /// The plugin refused to start.
    #[error("{} refused to start", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// What it says.
        #[source]
        source: Box<PluginError>,
    },
    /// The table lacks something.
    #[error("{} is incomplete: {missing}; report this to its author", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
}

impl LoadError {
    /// Whether the library brought down who looked at it, or nobody could: nothing of the config is wrong.
    pub fn is_crash(&self) -> bool {
        match self {
            Self::Quarantined { .. } | Self::Scan { .. } => true,
            Self::After { source, .. } => source.is_crash(),
            _ => false,
        }
    }

    /// Whether the library is another than the config wants.
    pub fn is_pin(&self) -> bool {
        match self {
            Self::Pinned { .. } => true,
            Self::After { source, .. } => source.is_pin(),
            _ => false,
        }
    }
}

/// A plugin that was found, and can be used.
#[derive(Clone)]
pub struct Plugin(Arc<Found>);

struct Found {
    path: PathBuf,
    stamp: Stamp,
    manifest: Manifest,
    /// The library, where it is loaded into this process. It is never unloaded.
    loaded: OnceLock<Arc<Loaded>>,
}

/// What tells a file from the one that takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    pub(crate) bytes: u64,
    pub(crate) modified_ns: i128,
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> Result<Self, LoadError> {
        let found = fs::metadata(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
        let modified_ns = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
        Ok(Self { device: found.dev(), inode: found.ino(), bytes: found.len(), modified_ns })
    }
}

/// A library in this process.
pub(crate) struct Loaded {
    pub(crate) manifest: Manifest,
    pub(crate) functions: Functions,
}

/// The functions that every plugin has, and those of its kind. All of them are there.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    pub(crate) create: abi::CreateFn,
    pub(crate) cancel: abi::InstanceFn,
    pub(crate) destroy: abi::InstanceFn,
    kind: KindFunctions,
}

#[derive(Clone, Copy)]
enum KindFunctions {
    Source(SourceFunctions),
    Channel(ChannelFunctions),
}

#[derive(Clone, Copy)]
pub(crate) struct SourceFunctions {
    pub(crate) check: abi::CheckFn,
    pub(crate) schema: abi::SchemaFn,
    pub(crate) read: abi::ReadFn,
}

#[derive(Clone, Copy)]
pub(crate) struct ChannelFunctions {
    pub(crate) describe: abi::DescribeFn,
    pub(crate) check: abi::CheckFn,
    pub(crate) push: abi::PushFn,
    pub(crate) poll: abi::PollFn,
    /// There where the manifest says so.
    pub(crate) callback: Option<abi::CallbackFn>,
}

impl Plugin {
    /// Loads the library at this path, which should hold this plugin, into this process.
    pub(crate) fn load(path: &Path, kind: PluginKind, name: &str) -> Result<Self, LoadError> {
        let stamp = Stamp::of(path)?;
        let (manifest, loaded) = load(path, kind, name)?;
        Ok(Self(Arc::new(Found { path: path.to_owned(), stamp, manifest, loaded: loaded.into() })))
    }

    /// The plugin at this path, as another process has found it to be.
    pub(crate) fn scanned(path: &Path, stamp: Stamp, manifest: Manifest) -> Self {
        Self(Arc::new(Found { path: path.to_owned(), stamp, manifest, loaded: OnceLock::new() }))
    }

    /// What the library's file was when it was looked at.
    pub(crate) fn stamp(&self) -> Stamp {
        self.0.stamp
    }

    /// What the plugin says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// The library's file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Makes a source component of this name with this `with` table, in this process and on the caller's thread.
    /// No I/O.
    ///
    /// # Errors
    /// Invalid config where the table does not fit the schema, or the plugin says so.
    pub fn source(&self, component: &str, config: &Value) -> Result<Box<dyn SourceConnector>, PluginError> {
        self.is_of(component, PluginKind::Source)?;
        Ok(Box::new(self.in_process_source(component, &self.complete(config)?)?))
    }

    /// Makes a channel component of this name with this `with` table, in this process and on the caller's thread.
    /// No I/O.
    ///
    /// # Errors
    /// Invalid config where the table does not fit the schema, or the plugin says so.
    pub fn channel(&self, component: &str, config: &Value) -> Result<Box<dyn ChannelConnector>, PluginError> {
        self.is_of(component, PluginKind::Channel)?;
        Ok(Box::new(self.in_process_channel(component, &self.complete(config)?)?))
    }

    /// A source of this config, which is complete.
    pub(crate) fn in_process_source(&self, component: &str, config: &Value) -> Result<InProcessSource, PluginError> {
        let loaded = self.loaded()?;
        match loaded.functions.kind {
            KindFunctions::Source(functions) => InProcessSource::create(loaded, functions, component, config),
            KindFunctions::Channel(_) => Err(self.other_kind(component, PluginKind::Source)),
        }
    }

    /// A channel of this config, which is complete.
    pub(crate) fn in_process_channel(&self, component: &str, config: &Value) -> Result<InProcessChannel, PluginError> {
        let loaded = self.loaded()?;
        match loaded.functions.kind {
            KindFunctions::Channel(functions) => InProcessChannel::create(loaded, functions, component, config.clone()),
            KindFunctions::Source(_) => Err(self.other_kind(component, PluginKind::Channel)),
        }
    }

    /// The library in this process: loaded now, where it was only looked at so far.
    fn loaded(&self) -> Result<&Arc<Loaded>, PluginError> {
        if let Some(loaded) = self.0.loaded.get() {
            return Ok(loaded);
        }
        let Manifest { kind, name, .. } = &self.0.manifest;
        let (_, loaded) = load(&self.0.path, *kind, name).map_err(|error| PluginError::new(ErrorClass::Internal, error.to_string()))?;
        Ok(self.0.loaded.get_or_init(|| loaded))
    }

    /// The config with the schema's defaults filled in.
    ///
    /// # Errors
    /// Invalid config where it does not fit the schema.
    pub(crate) fn complete(&self, config: &Value) -> Result<Value, PluginError> {
        if let Some(error) = schema::validate(config, &self.0.manifest.config_schema).into_iter().next() {
            let key = error.path.join(".");
            let hint = error.suggestion.map(|name| format!("did you mean {name:?}?"));
            return Err(PluginError { hint, ..PluginError::new(ErrorClass::InvalidConfig, error.message).key(key) });
        }
        let mut config = config.clone();
        schema::fill_defaults(&mut config, &self.0.manifest.config_schema);
        Ok(config)
    }

    /// The plugin broke this rule.
    pub(crate) fn violation(&self, rule: &str) -> PluginError {
        violation(&self.0.manifest, rule)
    }

    /// Invalid config where a component of this kind is to be made of a plugin of the other.
    pub(crate) fn is_of(&self, component: &str, wanted: PluginKind) -> Result<(), PluginError> {
        if self.0.manifest.kind == wanted { Ok(()) } else { Err(self.other_kind(component, wanted)) }
    }

    fn other_kind(&self, component: &str, wanted: PluginKind) -> PluginError {
        let Manifest { name, kind, .. } = &self.0.manifest;
        let message = format!("{component} is to be a {}, and {name} is a {} plugin", wanted.name(), kind.name());
        PluginError::new(ErrorClass::InvalidConfig, message)
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.0.manifest.name).field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl Loaded {
    /// The plugin broke this rule.
    pub(crate) fn violation(&self, rule: &str) -> PluginError {
        violation(&self.manifest, rule)
    }
}

fn violation(manifest: &Manifest, rule: &str) -> PluginError {
    let Manifest { name, version, kind, .. } = manifest;
    let message = format!("the {} plugin {name} {version} broke the contract: {rule}", kind.name());
    PluginError::new(ErrorClass::Internal, message).hint("report this to the plugin's author")
}

/// Loads the library at this path, which should hold this plugin: its manifest, and its functions.
fn load(path: &Path, kind: PluginKind, name: &str) -> Result<(Manifest, Arc<Loaded>), LoadError> {
    let library = open(path)?;
    let manifest = read_manifest(path, &library)?;
    // A file's name writes dashes as underscores.
    if manifest.kind != kind || manifest.name.replace('-', "_") != name.replace('-', "_") {
        let (found_kind, found_name) = (manifest.kind, manifest.name);
        return Err(LoadError::Mismatch { path: path.to_owned(), kind, name: name.to_owned(), found_kind, found_name });
    }
    let table = enter(path, &library)?;
    // SAFETY: the entry function has filled the table in by the contract, which the version vouches for.
    let functions = unsafe { Functions::take(&table, &manifest) };
    let functions = functions.map_err(|missing| LoadError::Incomplete { path: path.to_owned(), missing })?;
    // The functions are used as long as the process lives.
    std::mem::forget(library);
    Ok((manifest.clone(), Arc::new(Loaded { manifest, functions })))
}

fn open(path: &Path) -> Result<Library, LoadError> {
    // An absolute path: for a bare name the system would search where it pleases.
    let path = fs::canonicalize(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    // SAFETY: loading runs the library's initialisers: that is what an operator installs a plugin for.
    // Its terminators never run before the process ends.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) };
    library.map_err(|source| LoadError::Open { path, source })
}

/// A function that the library exports.
///
/// # Safety
/// `F` must be the symbol's type by the contract.
unsafe fn symbol<F: Copy>(path: &Path, library: &Library, symbol: &'static str) -> Result<F, LoadError> {
    // SAFETY: the caller's promise; the library is never unloaded, so that the function stays.
    let found = unsafe { library.get::<F>(symbol) };
    found.map(|function| *function).map_err(|source| LoadError::Symbol { path: path.to_owned(), symbol, source })
}

fn read_manifest(path: &Path, library: &Library) -> Result<Manifest, LoadError> {
    let broken = |rule: String| LoadError::Manifest { path: path.to_owned(), rule };
    // SAFETY: the contract's type.
    let function = unsafe { symbol::<ManifestFn>(path, library, MANIFEST_SYMBOL) }?;
    // SAFETY: the contract: no arguments, static text.
    let text = unsafe { static_text(function()) }.map_err(|rule| broken(rule.to_owned()))?;
    let document: Value = serde_json::from_slice(text).map_err(|error| broken(format!("it is no JSON: {error}")))?;
    // The version first: a later one may have other keys.
    let text_of = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
    let needs: [u32; 2] = document
        .get("abi")
        .and_then(|abi| serde_json::from_value(abi.clone()).ok())
        .ok_or_else(|| broken("its key abi is not a list of two numbers".to_owned()))?;
    if needs[0] != abi::MAJOR || needs[1] > abi::MINOR {
        return Err(LoadError::Version { path: path.to_owned(), name: text_of("name"), version: text_of("version"), needs });
    }
    serde_json::from_value(document).map_err(|error| broken(error.to_string()))
}

/// The bytes before the zero byte.
///
/// # Safety
/// `text` must be null, or static and ended by a zero byte.
unsafe fn static_text(text: *const c_char) -> Result<&'static [u8], &'static str> {
    if text.is_null() {
        return Err("there is none: making it failed");
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    if bytes.len() > CONTROL_BYTES_MAX { Err("it is longer than a control document may be") } else { Ok(bytes) }
}

fn enter(path: &Path, library: &Library) -> Result<abi::Plugin, LoadError> {
    // SAFETY: the contract's type.
    let entry = unsafe { symbol::<EntryFn>(path, library, ENTRY_SYMBOL) }?;
    let (mut table, mut error) = (abi::Plugin::empty(), abi::Error::empty());
    // SAFETY: both structs are valid and have their sizes set.
    let status = unsafe { entry(abi::MINOR, &raw mut table, &raw mut error) };
    // SAFETY: filled in by the plugin where the status is not 0.
    unsafe { instance::outcome(status, &error) }.map_err(|source| LoadError::Entry { path: path.to_owned(), source: Box::new(source) })?;
    Ok(table)
}

impl Functions {
    /// The functions of a table, or which of them is missing.
    ///
    /// # Safety
    /// The table must be filled in by the contract: its pointers null, or leading to static tables.
    unsafe fn take(table: &abi::Plugin, manifest: &Manifest) -> Result<Self, &'static str> {
        if table.size < abi::Plugin::SIZE_1_0 {
            return Err("its table is smaller than that of version 1.0");
        }
        let kind = match manifest.kind {
            PluginKind::Source => {
                // SAFETY: the caller's promise.
                let table = unsafe { table.source.as_ref() };
                KindFunctions::Source(SourceFunctions::take(table.ok_or("it has no table of a source")?)?)
            }
            PluginKind::Channel if table.channel.is_null() => return Err("it has no table of a channel"),
            PluginKind::Channel => {
                // SAFETY: the caller's promise; one of version 1.0 ends before today's does.
                let table = unsafe { ChannelTable::read(table.channel) };
                KindFunctions::Channel(ChannelFunctions::take(&table, manifest.capabilities.callback)?)
            }
        };
        Ok(Self {
            create: table.create.ok_or("it has no function create")?,
            cancel: table.cancel.ok_or("it has no function cancel")?,
            destroy: table.destroy.ok_or("it has no function destroy")?,
            kind,
        })
    }
}

impl SourceFunctions {
    fn take(table: &SourceTable) -> Result<Self, &'static str> {
        if table.size < SourceTable::SIZE_1_0 {
            return Err("its table of a source is smaller than that of version 1.0");
        }
        Ok(Self {
            check: table.check.ok_or("it has no function check")?,
            schema: table.schema.ok_or("it has no function schema")?,
            read: table.read.ok_or("it has no function read")?,
        })
    }
}

impl ChannelFunctions {
    fn take(table: &ChannelTable, takes_callbacks: bool) -> Result<Self, &'static str> {
        if table.size < ChannelTable::SIZE_1_0 {
            return Err("its table of a channel is smaller than that of version 1.0");
        }
        if takes_callbacks && table.callback.is_none() {
            return Err("its manifest says callback, and it has no function callback");
        }
        Ok(Self {
            describe: table.describe.ok_or("it has no function describe")?,
            check: table.check.ok_or("it has no function check")?,
            push: table.push.ok_or("it has no function push")?,
            poll: table.poll.ok_or("it has no function poll")?,
            callback: table.callback.filter(|_| takes_callbacks),
        })
    }
}
