//! What the documents say of the code has to be true: directions between modules, guarantees and their tests, names
//! of bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The top-level module a file belongs to.
fn module(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Without `#[cfg(test)]` modules, which stand at the end of their files.
fn production(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod tests").next().unwrap()
}

/// `module → a, b` as the code has it.
fn directions() -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeSet<String> = rust_files(&root().join("src")).iter().map(|path| module(path)).collect();
    let mut directions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in rust_files(&root().join("src")) {
        let (from, source) = (module(&path), std::fs::read_to_string(&path).unwrap());
        if from == "lib" || from == "main" {
            continue;
        }
        let to = directions.entry(from.clone()).or_default();
        for rest in production(&source).split("crate::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name != from && modules.contains(&name) {
                to.insert(name);
            }
        }
    }
    directions
}

#[test]
fn modules_depend_on_each_other_only_as_architecture_says() {
    let architecture = text("ARCHITECTURE.md");
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in architecture.lines() {
        if let Some((from, to)) = line.split_once(" → ")
            && !from.trim().is_empty()
            && !from.trim().contains(' ')
            && (root().join("src").join(format!("{}.rs", from.trim())).exists()
                || root().join("src").join(from.trim()).is_dir())
        {
            let to = to.split(',').map(|name| name.trim().to_owned()).filter(|name| name != "nothing").collect();
            documented.insert(from.trim().to_owned(), to);
        }
    }
    assert_eq!(documented, directions(), "ARCHITECTURE.md and the code differ");
}

#[test]
fn the_domain_has_no_io_no_clock_no_serde_and_no_logging() {
    for path in rust_files(&root().join("src/directory")) {
        let source = std::fs::read_to_string(&path).unwrap();
        // `json` reads the text of a value, and is nothing but functions of that text.
        let source = production(&source).replace("crate::json", "");
        for banned in ["serde", "tokio", "async ", "tracing", "std::fs", "std::net", "SystemTime", "Instant", "crate::"]
        {
            assert!(!source.contains(banned), "{} uses {banned}", path.display());
        }
    }
}

#[test]
fn every_guarantee_that_the_readme_calls_tested_has_its_test() {
    let readme = text("README.md");
    let sources: String =
        rust_files(&root().join("tests/it")).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let guarantees: Vec<&str> = readme.lines().filter(|line| line.contains(". **G")).collect();
    assert_eq!(guarantees.len(), 11, "G1 to G11");
    let mut named = 0;
    for word in readme.split('`').filter(|word| word.starts_with('g') && word.contains('_')) {
        let number = word[1..].split('_').next().unwrap();
        if number.parse::<u32>().is_ok() {
            assert!(sources.contains(&format!("fn {word}(")), "{word} is named in the README but does not exist");
            named += 1;
        }
    }
    assert!(named >= 9, "the README names the tests");
    for test in sources.split("fn g").skip(1).map(|rest| rest.split('(').next().unwrap()) {
        if test.starts_with(|c: char| c.is_ascii_digit()) {
            assert!(readme.contains(&format!("g{test}")), "g{test} is not in the README");
        }
    }
}

#[test]
fn fail_points_are_all_used_and_only_builds_for_tests_have_them() {
    let manifest: toml::Table = text("Cargo.toml").parse().expect("a manifest");
    // A feature of a development dependency is that only where those are built too.
    assert_eq!(manifest["dependencies"]["fail"], toml::Value::from("0.5"), "no features");
    assert_eq!(manifest["dev-dependencies"]["fail"]["features"], toml::Value::from(vec!["failpoints"]));
    let sources: String = rust_files(&root().join("src"))
        .iter()
        .filter(|path| module(path) != "failpoint")
        .map(|path| production(&std::fs::read_to_string(path).unwrap()).to_owned())
        .collect();
    for point in scimtail::failpoint::Point::ALL {
        assert!(sources.contains(&format!("Point::{point:?}")), "{point:?} stands nowhere");
    }
}

#[test]
fn only_schedule_asks_for_the_time_and_only_retry_knows_the_backoff_crate() {
    for path in rust_files(&root().join("src")) {
        let (module, source) = (module(&path), std::fs::read_to_string(&path).unwrap());
        assert!(module == "schedule" || !production(&source).contains("SystemTime::now()"), "{}", path.display());
        assert!(module == "retry" || !source.contains("backoff::"), "{}", path.display());
    }
}

#[test]
fn the_page_about_providers_says_what_their_profiles_say() {
    let page = scimtail::cli::providers::markdown().expect("the shipped profiles parse");
    let stale = format!("docs/providers.md is stale; → {}", scimtail::cli::providers::REGENERATE);
    assert!(text("docs/providers.md") == page, "{stale}");
}
