//! The files that `plugins new` writes. They are files of this project, as they are: what stands for the name and for
//! the SDK in them is replaced.

use reunion_model::plugin::PluginKind;

use crate::cli::Lang;

/// Stands for the plugin's name.
const NAME: &str = "my-plugin";
/// Stands for the same in the names of libraries, where a dash is an underscore.
const IDENTIFIER: &str = "my_plugin";
/// Stands for the SDK's folder, as a text of TOML.
const SDK: &str = "\"/path/to/reunion/core/sdk\"";

/// A file of a template: its path in the folder, and what it holds.
type File = (&'static str, &'static str);

/// The files of a folder of `core/daemon/templates/plugin`.
macro_rules! files {
    ($folder:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../../templates/plugin/", $folder, "/", $path)))),+]
    };
}

/// Files of the kit in C, which the example in `docs/author/examples/c-lines` uses too.
macro_rules! kit {
    ($($name:literal),+ $(,)?) => {
        &[$((concat!("kit/", $name), include_str!(concat!("../../../../../docs/author/examples/c-lines/kit/", $name)))),+]
    };
}

const SOURCE_RUST: &[File] = files!("source-rust":
    ".gitignore", "Cargo.toml", "README.md", "rustfmt.toml", "sample.toml", "src/config.rs", "src/lib.rs", "src/rows.rs", "tests/plugin.rs",
    "verify.toml",
);
const CHANNEL_RUST: &[File] = files!("channel-rust":
    ".gitignore", "Cargo.toml", "README.md", "rustfmt.toml", "sample.toml", "src/config.rs", "src/folder.rs", "src/lib.rs", "src/push.rs",
    "tests/plugin.rs", "verify-out/.gitignore", "verify.toml",
);
const SOURCE_C: &[File] = files!("source-c":
    ".gitignore", "Makefile", "README.md", "sample.toml", "src/plugin.c", "tests/test_plugin.c", "verify.toml",
);
const CHANNEL_C: &[File] = files!("channel-c":
    ".gitignore", "Makefile", "README.md", "sample.toml", "src/plugin.c", "tests/test_plugin.c", "verify-out/.gitignore", "verify.toml",
);
const KIT: &[File] = kit!("answer.c", "kit.h", "table.c", "testing.c", "testing.h", "text.c");
const HEADER: &[File] = &[("include/reunion_plugin.h", include_str!("../../../../abi/include/reunion_plugin.h"))];

/// Everything that makes a plugin of this kind: the path of each file, and what it holds. `sdk` is the folder of the
/// SDK, for a plugin in Rust.
pub fn files(kind: PluginKind, lang: Lang, name: &str, sdk: Option<&str>) -> Vec<(&'static str, String)> {
    let own = match (kind, lang) {
        (PluginKind::Source, Lang::Rust) => SOURCE_RUST,
        (PluginKind::Channel, Lang::Rust) => CHANNEL_RUST,
        (PluginKind::Source, Lang::C) => SOURCE_C,
        (PluginKind::Channel, Lang::C) => CHANNEL_C,
    };
    let shared: [&[File]; 2] = match lang {
        Lang::Rust => [&[], &[]],
        Lang::C => [KIT, HEADER],
    };
    let sdk = sdk.map_or_else(String::new, |sdk| toml::Value::String(sdk.to_owned()).to_string());
    let named = |text: &str| text.replace(SDK, &sdk).replace(NAME, name).replace(IDENTIFIER, &name.replace('-', "_"));
    let own = own.iter().map(|(path, text)| (*path, named(text)));
    let shared = shared.into_iter().flatten().map(|(path, text)| (*path, (*text).to_owned()));
    own.chain(shared).collect()
}
