//! `key new|rotate|export`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reunion_generations::{StateDir, open_or_create_keys, store_keys};
use reunion_keys::{KeyRing, MasterKey};
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{Exit, KeyCommand, KeyEncoding};
use crate::failure::{Doing, Failure};
use crate::state::{State, keys_failure};

/// `key new`, which needs no config; `None` for the others.
pub fn without_config(command: &KeyCommand) -> Option<Result<Exit, Failure>> {
    match command {
        KeyCommand::New { output } => Some(new(output.as_deref())),
        KeyCommand::Rotate { .. } | KeyCommand::Export { .. } => None,
    }
}

/// The commands that need a state.
pub fn key(app: &App, command: KeyCommand) -> Result<Exit, Failure> {
    match command {
        KeyCommand::New { output } => new(output.as_deref()),
        KeyCommand::Rotate { master } => rotate(app, master.as_deref()),
        KeyCommand::Export { version, encoding } => export(app, version, encoding),
    }
}

fn new(output: Option<&Path>) -> Result<Exit, Failure> {
    let key = MasterKey::generate().doing(|| "a key cannot be made".to_owned())?;
    let line = zeroize::Zeroizing::new(format!("{}\n", *key.to_hex()));
    match output {
        None => io::stdout().write_all(line.as_bytes()).doing(|| "standard output cannot be written".to_owned())?,
        Some(path) => {
            let doing = || format!("the key cannot be written to {}", path.display());
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
                let there = error.kind() == io::ErrorKind::AlreadyExists;
                let failure = Failure::other(doing()).because(error);
                if there { failure.help("a key that a state was made with must not be lost; choose another name") } else { failure }
            })?;
            file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).doing(doing)?;
        }
    }
    Ok(Exit::Done)
}

fn open(app: &App) -> Result<(StateDir, KeyRing), Failure> {
    let master = app.config.master_key()?;
    let dir = &app.config.state.dir;
    let state = StateDir::create(dir).doing(|| format!("the state folder {} cannot be used", dir.display()))?;
    let ring = open_or_create_keys(&state, &master).map_err(keys_failure)?;
    Ok((state, ring))
}

fn rotate(app: &App, master: Option<&Path>) -> Result<Exit, Failure> {
    // Nobody may write under the old key while it is replaced.
    let _hold = State::open(&app.config, &app.runtime)?.hold(&app.config)?;
    let (state, mut ring) = open(app)?;
    let old = app.config.master_key()?;
    let new = master.map(read_master).transpose()?;
    ring.rotate().doing(|| "a key cannot be made".to_owned())?;
    let wrapped = ring.wrap(new.as_ref().unwrap_or(&old)).doing(|| "the keys cannot be wrapped".to_owned())?;
    store_keys(&state, &wrapped).doing(|| "the keys cannot be stored; the old ones stand".to_owned())?;
    let result = json!({ "data_key_version": ring.current(), "fingerprint": wrapped.fingerprint });
    app.print(&result, |_| {
        let mut text = format!("what is written from now on is encrypted under version {} of the data key", ring.current());
        if new.is_some() {
            text.push_str("\nthe state opens with the new master key alone: put it where [state] key says before the next start");
        }
        text
    })?;
    Ok(Exit::Done)
}

fn read_master(path: &Path) -> Result<MasterKey, Failure> {
    let text = std::fs::read_to_string(path).map(zeroize::Zeroizing::new).doing(|| format!("{} cannot be read", path.display()))?;
    MasterKey::from_hex(&text).map_err(|error| {
        let failure = Failure::usage(format!("{} holds no master key", path.display())).because(error);
        failure.help("`reunion key new --output PATH` makes one")
    })
}

fn export(app: &App, version: Option<u32>, encoding: KeyEncoding) -> Result<Exit, Failure> {
    let (_, ring) = open(app)?;
    let chosen = version.unwrap_or(ring.current());
    let document = |version: u32| {
        let key = ring.file_key(version)?;
        Some(json!({ "version": version, "key": hex::encode(key.as_ref()), "base64": STANDARD.encode(key.as_ref()) }))
    };
    let mut result = document(chosen).ok_or_else(|| {
        let known = ring.versions().map(|version| version.to_string()).collect::<Vec<_>>().join(", ");
        Failure::usage(format!("the state has no version {chosen} of the data key")).help(format!("it has {known}"))
    })?;
    result["keys"] = ring.versions().filter_map(document).collect();
    let others: Vec<String> = ring.versions().filter(|other| *other != chosen).map(|version| version.to_string()).collect();
    if version.is_none() && !others.is_empty() {
        // On standard error: what is printed may be handed on as it is.
        tracing::info!("this is version {chosen} of the key; older files need another, --version {}", others.join(" or "));
    }
    app.print(&result, |result: &Value| {
        let name = match encoding {
            KeyEncoding::Hex => "key",
            KeyEncoding::Base64 => "base64",
        };
        result[name].as_str().unwrap_or_default().to_owned()
    })?;
    Ok(Exit::Done)
}
