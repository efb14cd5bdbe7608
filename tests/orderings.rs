//! The `# Orderings` tables say what the code does: every site has one row, in its own module, with its
//! ordering.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

/// The sites of a source, with their orderings as the tables write them.
fn sites(source: &str) -> Vec<(String, String)> {
    let mut sites = Vec::new();
    for (macro_name, suffix) in [("mo!(\"", ""), ("fence!(\"", " fence"), ("fence_after_rmw!(\"", " fence")] {
        for found in source.split(macro_name).skip(1) {
            let (site, rest) = found.split_once("\", ").unwrap();
            let (order, _) = rest.split_once([',', ')']).unwrap();
            sites.push((site.to_owned(), format!("`{order}`{suffix}")));
        }
    }
    sites
}

/// The rows of a source's table: site and ordering.
fn rows(source: &str) -> Vec<(String, String)> {
    let table = source.lines().filter_map(|line| line.strip_prefix("//! | `"));
    table
        .filter_map(|row| {
            let (site, rest) = row.split_once("` | ")?;
            let (order, _) = rest.split_once(" | ")?;
            site.contains('.').then(|| (site.to_owned(), order.to_owned()))
        })
        .collect()
}

#[test]
fn every_site_has_its_row_and_every_row_its_site() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let mut in_code = BTreeMap::new();
    let mut in_tables = BTreeMap::new();
    // The facade defines the macros and shows them in its documentation.
    for path in paths.iter().filter(|path| !path.starts_with(root.join("sync"))) {
        let source = fs::read_to_string(path).unwrap();
        for (site, order) in sites(&source) {
            let twice = in_code.insert(site.clone(), order);
            assert!(twice.is_none(), "{site} names two places; a mutant would weaken both");
        }
        for (site, order) in rows(&source) {
            let before = in_tables.insert(site.clone(), order.clone());
            assert!(before.is_none_or(|before| before == order), "{site} has two rows that differ");
        }
    }
    assert!(in_code.len() > 20, "the search finds too little: {in_code:?}");
    assert_eq!(in_code, in_tables);
}

#[test]
fn every_ordering_but_relaxed_is_a_site() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    for path in paths.iter().filter(|path| !path.starts_with(root.join("sync"))) {
        let source = fs::read_to_string(path).unwrap();
        for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let bare = ["Acquire", "Release", "AcqRel", "SeqCst"].iter().any(|order| {
                line.contains(&format!("Ordering::{order}"))
                    || line.contains(&format!(", {order})"))
                        && !line.contains("mo!(")
                        && !line.contains("fence")
            });
            assert!(!bare, "{}: an ordering without a site: {line}", path.display());
        }
    }
}
