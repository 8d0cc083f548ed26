//! The pages of `docs/reference` say what the code says.

use std::fs;
use std::path::Path;

use reunion_daemon::config::reference;

#[test]
fn the_reference_pages_are_those_of_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    for (name, page) in reference::pages() {
        let path = folder.join(name);
        if update {
            fs::create_dir_all(&folder).expect("the folder of the pages");
            fs::write(&path, &page).expect("the page");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == page,
            "docs/reference/{name} is not what the code says now; write it anew with \
             UPDATE_DOCS=1 cargo test -p reunion-daemon --test config_reference"
        );
    }
}
