//! `plugins new`: a folder with a plugin that builds and passes its tests, to begin with.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use reunion_host::library_name;
use serde_json::json;

use super::templates;
use crate::app;
use crate::cli::{Exit, Format, Lang, NewPlugin};
use crate::failure::{Doing, Failure};

/// Where the package puts the SDK.
const INSTALLED_SDK: &str = "/usr/share/reunion/sdk";
/// Where a checkout of Reunion has the SDK.
const SDK_IN_CHECKOUT: &str = "core/sdk";
/// The folders of a checkout whose folders are members of Reunion's own workspace.
const OWN_FOLDERS: [&str; 3] = ["core", "plugins/sources", "plugins/channels"];

/// Writes the folder.
pub fn new(args: &NewPlugin, format: Format) -> Result<Exit, Failure> {
    let NewPlugin { name, kind, lang, dir, sdk } = args;
    let (kind, lang) = (*kind, *lang);
    let library = library_name(kind, name).ok_or_else(|| {
        let message = format!("{name:?} cannot be the name of a plugin");
        Failure::usage(message).help("up to 64 lower-case letters, digits, dashes and underscores, such as `my-erp`")
    })?;
    if lang == Lang::C && sdk.is_some() {
        return Err(Failure::usage("`--sdk` is of no use to a plugin in C").help("its folder gets all that it needs"));
    }
    let shown = dir.as_deref().unwrap_or(Path::new(name));
    let folder = absent(shown)?;
    let sdk = match lang {
        Lang::Rust => Some(path_to(&find_sdk(sdk.as_deref(), &folder)?, &folder)?),
        Lang::C => None,
    };
    let files = templates::files(kind, lang, name, sdk.as_deref());
    write_all(&folder, &files)?;
    let next = next_commands(shown, lang, &library);
    let document = json!({
        "folder": folder,
        "kind": kind,
        "lang": lang.name(),
        "sdk": sdk,
        "files": files.iter().map(|(path, _)| *path).collect::<Vec<_>>(),
        "next": next,
    });
    app::print(format, &document, |_| {
        let with = sdk.map(|sdk| format!(", with the SDK in {sdk}")).unwrap_or_default();
        let what = format!("wrote {}: a {} in {}, {} files{with}", shown.display(), kind.name(), lang.name(), files.len());
        format!("{what}\n\nnext:\n  {}", next.join("\n  "))
    })?;
    Ok(Exit::Done)
}

/// The folder's full path, in which nothing is yet.
fn absent(folder: &Path) -> Result<PathBuf, Failure> {
    let shown = folder.display();
    let name = folder.file_name().ok_or_else(|| Failure::usage(format!("{shown} cannot be the name of a new folder")))?;
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = fs::canonicalize(parent).doing(|| format!("{} cannot be reached, in which the folder is to be", parent.display()))?;
    let folder = parent.join(name);
    if fs::symlink_metadata(&folder).is_ok() {
        let failure = Failure::usage(format!("{shown} is there already, and nothing was written"));
        return Err(failure.help("choose another name, or another folder with --dir"));
    }
    let checkout = parent.ancestors().find(|above| is_sdk(&above.join(SDK_IN_CHECKOUT)));
    if checkout.is_some_and(|checkout| OWN_FOLDERS.iter().any(|own| folder.starts_with(checkout.join(own)))) {
        let failure =
            Failure::usage(format!("{shown} lies among the crates of Reunion itself, whose workspace would take it for one of them"));
        return Err(failure.help("write it to another place with --dir"));
    }
    Ok(folder)
}

/// The folder of the SDK.
fn find_sdk(given: Option<&Path>, folder: &Path) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return sdk_at(given).ok_or_else(|| {
            let message = format!("{} is neither the SDK nor a checkout of Reunion", given.display());
            Failure::usage(message).help(format!("the SDK is the folder {SDK_IN_CHECKOUT} of a checkout"))
        });
    }
    let here = env::current_dir().doing(|| "the current folder cannot be found".to_owned())?;
    let above = |path: &Path| path.ancestors().skip(1).find_map(sdk_at);
    let found = above(folder).or_else(|| sdk_at(&here)).or_else(|| above(&here)).or_else(|| sdk_at(Path::new(INSTALLED_SDK)));
    found.ok_or_else(|| {
        let places = [format!("the folders above {}", folder.display()), format!("{} and the folders above it", here.display())];
        let message =
            format!("the SDK is not there; looked for a checkout of Reunion in {}, then for {INSTALLED_SDK}", places.join(" and in "));
        Failure::usage(message).help("clone Reunion, and name the checkout with --sdk; or write a plugin in C, which needs no SDK")
    })
}

/// The SDK that this folder is, or has in it as a checkout has.
fn sdk_at(path: &Path) -> Option<PathBuf> {
    let found = [path.to_owned(), path.join(SDK_IN_CHECKOUT)].into_iter().find(|path| is_sdk(path))?;
    fs::canonicalize(found).ok()
}

fn is_sdk(path: &Path) -> bool {
    let manifest = fs::read_to_string(path.join("Cargo.toml")).ok().and_then(|text| text.parse::<toml::Table>().ok());
    let name = manifest.as_ref().and_then(|manifest| manifest.get("package")?.get("name")?.as_str());
    name == Some("reunion-sdk")
}

/// How the new folder's files name the SDK: by its place beside them, where both lie in one checkout, which may be moved
/// as a whole; else by its full path.
fn path_to(sdk: &Path, folder: &Path) -> Result<String, Failure> {
    let checkout = sdk.ancestors().nth(2).filter(|_| sdk.ends_with(SDK_IN_CHECKOUT));
    let below = checkout.and_then(|checkout| folder.strip_prefix(checkout).ok());
    let path = match below {
        Some(below) => below.components().map(|_| Component::ParentDir.as_os_str()).collect::<PathBuf>().join(SDK_IN_CHECKOUT),
        None => sdk.to_owned(),
    };
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage(format!("the path of the SDK, {}, is not UTF-8, which Cargo asks for", path.display())))
}

/// Writes the files into a folder of their own, all of them or none.
fn write_all(folder: &Path, files: &[(&str, String)]) -> Result<(), Failure> {
    fs::create_dir(folder).doing(|| format!("the folder {} cannot be made", folder.display()))?;
    let written = files.iter().try_for_each(|(path, text)| write(&folder.join(path), text));
    written.inspect_err(|_| {
        // The folder was not there before. What it failed with counts, and not what tidying up comes to.
        let _ = fs::remove_dir_all(folder);
    })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = made.and_then(|()| fs::File::create_new(path)).and_then(|mut file| file.write_all(text.as_bytes()));
    written.doing(|| format!("{} cannot be written", path.display()))
}

/// What to type next.
fn next_commands(folder: &Path, lang: Lang, library: &str) -> [String; 3] {
    let (test, library) = match lang {
        Lang::Rust => ("cargo test && cargo build", format!("target/debug/{library}")),
        Lang::C => ("make test", library.to_owned()),
    };
    [
        format!("cd {}", in_shell(&folder.to_string_lossy())),
        test.to_owned(),
        format!("reunion plugins verify {library} --config verify.toml"),
    ]
}

/// A word as a shell takes it.
fn in_shell(word: &str) -> String {
    let is_plain = word.chars().all(|c| c.is_alphanumeric() || "-_./".contains(c)) && !word.starts_with('-');
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
