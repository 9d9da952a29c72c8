//! What the documents say of the code has to be true: directions between modules, guarantees and their tests, names
//! of bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::imports;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file of the repository, as `/path`; what is built or fetched aside.
fn everything(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match path.is_dir() {
            true if ["target", ".git", "node_modules"].contains(&name) => {}
            true => all.extend(everything(&path)),
            false => all.push(format!("/{}", path.strip_prefix(root()).unwrap().display())),
        }
    }
    all
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    files(directory, "rs")
}

fn files(directory: &Path, kind: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path, kind));
        } else if path.extension().is_some_and(|extension| extension == kind) {
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
    assert_eq!(documented, imports::modules(), "ARCHITECTURE.md and the code differ");
}

#[test]
fn the_domain_has_no_io_no_clock_no_serde_and_no_logging() {
    for path in rust_files(&root().join("src/directory")) {
        let source = std::fs::read_to_string(&path).unwrap();
        // `json` reads the text of a value, and is nothing but functions of that text.
        let source = production(&source).replace("crate::json", "").replace("crate::directory", "");
        for banned in ["serde", "tokio", "async ", "tracing", "std::fs", "std::net", "SystemTime", "Instant", "crate::"]
        {
            assert!(!source.contains(banned), "{} uses {banned}", path.display());
        }
    }
}

#[test]
fn every_guarantee_has_its_tests_on_its_page_and_a_line_in_the_readme() {
    let (page, readme) = (text("docs/guarantees.md"), text("README.md"));
    let sources: String =
        rust_files(&root().join("tests/it")).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let mut named = 0;
    for number in 1..=11 {
        assert!(readme.lines().any(|line| line.starts_with(&format!("- **G{number}** "))), "G{number} in the README");
        let (_, entry) = page.split_once(&format!("\n## G{number}\n")).unwrap_or_else(|| panic!("no G{number}"));
        let entry = entry.split("\n## ").next().unwrap();
        let tests: Vec<&str> = entry.lines().filter_map(|line| line.strip_prefix("- `")?.strip_suffix('`')).collect();
        assert!(!tests.is_empty(), "G{number} names no test");
        for test in tests {
            assert!(test.starts_with(&format!("g{number}_")), "{test} is no test of G{number}");
            assert!(sources.contains(&format!("fn {test}(")), "{test} is named on the page but does not exist");
            named += 1;
        }
    }
    assert!(named >= 40, "the page names {named} tests");
    for test in sources.split("fn g").skip(1).map(|rest| rest.split('(').next().unwrap()) {
        if test.starts_with(|c: char| c.is_ascii_digit()) {
            assert!(page.contains(&format!("- `g{test}`")), "g{test} is not in docs/guarantees.md");
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
fn three_calls_of_librdkafka_and_two_of_the_allocator_are_unsafe() {
    let unsafe_of = |path: &PathBuf| production(&std::fs::read_to_string(path).unwrap()).matches("unsafe {").count();
    let found: Vec<_> = rust_files(&root().join("src")).into_iter().filter(|path| unsafe_of(path) > 0).collect();
    let expected = ["src/kafka/credentials.rs", "src/kafka/oauth.rs", "src/kafka/sender.rs", "src/memory.rs"];
    let expected = expected.map(|path| root().join(path));
    assert_eq!(found.iter().collect::<BTreeSet<_>>(), expected.iter().collect());
    assert_eq!(found.iter().map(unsafe_of).sum::<usize>(), 5);
}

#[test]
fn the_page_about_providers_says_what_their_profiles_say() {
    let page = scimtail::cli::providers::markdown().expect("the shipped profiles parse");
    let stale = format!("docs/providers.md is stale; → {}", scimtail::cli::providers::REGENERATE);
    assert!(text("docs/providers.md") == page, "{stale}");
}

/// What a person reads of this repository: path and text. Of code only the comments.
fn prose() -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for path in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "schemas/README.md",
        "tests/cases/README.md",
    ] {
        all.push((root().join(path), text(path)));
    }
    for path in files(&root().join("docs"), "md") {
        all.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
    }
    for path in
        ["src", "tests/it", "benches", "fuzz/fuzz_targets"].iter().flat_map(|folder| rust_files(&root().join(folder)))
    {
        let source = std::fs::read_to_string(&path).unwrap();
        let comments = source
            .lines()
            .filter_map(|line| Some(line.trim_start().split_once("//")?).filter(|(code, _)| code.is_empty()));
        let text: Vec<&str> = comments.map(|(_, comment)| comment.trim_start_matches(['/', '!'])).collect();
        all.push((path, text.join("\n")));
    }
    all
}

/// A reader of the repository has nothing else.
#[test]
fn every_file_that_is_cited_is_there() {
    const KINDS: [&str; 9] = [".rs", ".md", ".toml", ".avsc", ".py", ".json", ".mjs", ".yml", ".sh"];
    let tracked: Vec<String> = everything(&root());
    let mut missing = Vec::new();
    for (path, text) in prose() {
        for cited in text.split('`').skip(1).step_by(2) {
            let is_a_file = KINDS.iter().any(|kind| cited.ends_with(kind) && cited.len() > kind.len());
            let is_a_path = cited.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
            // `src/mapping/NAME.rs` and the configuration are files that their reader writes.
            let is_a_pattern = cited.contains("NAME") || cited.contains("VERSION") || cited == "scimtail.toml";
            if is_a_file && is_a_path && !is_a_pattern {
                let end = format!("/{}", cited.trim_start_matches("../").trim_start_matches("./"));
                if !tracked.iter().any(|file| file.ends_with(&end)) {
                    missing.push(format!("{}: {cited}", path.display()));
                }
            }
        }
        for foreign in ["design §", "contract.md", "scim.md", "kafka.md §", "consumers.md", "vendors.md", "(issue "] {
            if text.contains(foreign) {
                missing.push(format!("{}: {foreign}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "cited, but not in the repository:\n{}", missing.join("\n"));
}

/// Words of German syntax that make a sentence hard to read in an incident. A person is a person; a principal is not.
#[test]
fn no_text_uses_the_worst_words() {
    const WORST: [&str; 6] = ["whoever", "nobody", "somebody", "anybody", "anew", "whomever"];
    let mut found = Vec::new();
    for (path, text) in prose() {
        // Comments of the tests, and the tables that are generated from declarations, have their own pace.
        let own = ["src/", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/"];
        let relative = path.strip_prefix(root()).unwrap().to_str().unwrap();
        // Its words are those of the schemas, which are frozen.
        if !own.iter().any(|start| relative.starts_with(start)) || relative == "docs/records.md" {
            continue;
        }
        // What is quoted from the code or printed by the program is not prose.
        let prose: String = text.split('`').step_by(2).collect();
        let words = prose.split(|c: char| !c.is_alphabetic());
        let bad: BTreeSet<String> =
            words.map(str::to_lowercase).filter(|word| WORST.contains(&word.as_str())).collect();
        found.extend(bad.into_iter().map(|word| format!("{relative}: {word}")));
    }
    assert!(found.is_empty(), "say it by its name:\n{}", found.join("\n"));
}
