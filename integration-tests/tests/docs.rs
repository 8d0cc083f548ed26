//! The pages: their links lead somewhere, and the Chinese guide is in step with the English one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

/// Every page of the project.
fn pages() -> Vec<PathBuf> {
    let mut pending: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "docs", "config", "plugins"].iter().map(|name| root().join(name)).collect();
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).expect("a folder of the project").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

/// The lines of a page outside its fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The levels of a page's headings, in order.
fn levels(text: &str) -> Vec<usize> {
    prose(text).filter(|line| line.starts_with('#')).map(|line| line.chars().take_while(|c| *c == '#').count()).collect()
}

/// The anchors that a page's headings make: lower case, dashes for spaces, no punctuation.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(text).filter(|line| line.starts_with('#')).map(anchor).collect()
}

/// The targets of a page's links, those to other sites left out.
fn links(text: &str) -> Vec<String> {
    let targets = |line: &str| line.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect::<Vec<_>>();
    prose(text).flat_map(targets).filter(|target| !target.contains("://")).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().expect("a folder").join(path) };
            let there = match anchor {
                "" => target.exists(),
                anchor => fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor)),
            };
            if !there {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_chinese_guide_is_in_step_with_the_english_one() {
    for entry in fs::read_dir(root().join("docs/operate")).expect("pages") {
        let page = entry.expect("a page").path();
        let name = page.file_name().expect("a name");
        let english = fs::read_to_string(&page).expect("a page");
        let chinese = fs::read_to_string(root().join("docs/zh").join(name)).unwrap_or_else(|_| panic!("docs/zh lacks {name:?}"));
        assert_eq!(levels(&english), levels(&chinese), "the sections of {name:?} differ");
        let blocks = |text: &str| text.lines().filter(|line| line.starts_with("```")).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(blocks(&english), blocks(&chinese), "the blocks of {name:?} differ");
        let rows = |text: &str| prose(text).filter(|line| line.starts_with('|')).count();
        assert_eq!(rows(&english), rows(&chinese), "the tables of {name:?} differ");
    }
}
