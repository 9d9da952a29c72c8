//! Every page in `fuzz/corpus`, and some thousand seeded mutations of them, through what the fuzz targets run.

use std::path::Path;

use super::checks;

/// Seed of the mutations; another value makes another run.
const SEED: u64 = 20_261_121;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{} is nearly empty", folder.display());
    files
}

/// Values that servers and attackers write in place of the right one.
const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1e400",
    "\"\"",
    "\"id\"",
    "\"value\"",
    "\"Resources\"",
    "\"totalResults\"",
    "\"members\"",
    "\"active\"",
    "\"emails\"",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "{\"id\":\"x\"}",
    "[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
    "18446744073709551616",
    ".",
    "..",
    "urn:x:y:1.0:User",
    "\n---\n",
];

fn mutated(random: &mut fastrand::Rng, files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = files[random.usize(..files.len())].1.clone();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(..40)).min(bytes.len());
        match random.u8(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            5 => {
                let token = TOKENS[random.usize(..TOKENS.len())];
                bytes.splice(at..end, token.bytes());
            }
            _ => {
                let other = &files[random.usize(..files.len())].1;
                let from = random.usize(..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn no_page_and_no_mutation_of_one_breaks_the_reading() {
    println!("seed {SEED}");
    let files = corpus("list_response");
    for (name, bytes) in &files {
        println!("{name}");
        checks::list_response(bytes);
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    for number in 0..5_000 {
        let bytes = mutated(&mut random, &files);
        let read = std::panic::catch_unwind(|| checks::list_response(&bytes));
        assert!(read.is_ok(), "mutation {number}: {}", String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sequence_of_pages_and_no_mutation_of_one_keeps_a_walk_from_ending() {
    println!("seed {SEED}");
    let files = corpus("paging");
    let pager = checks::Pager::start().await;
    for (name, bytes) in &files {
        println!("{name}");
        pager.paging(bytes).await;
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    for number in 0..1_000 {
        let bytes = mutated(&mut random, &files);
        println!("mutation {number}: {}", String::from_utf8_lossy(&bytes));
        pager.paging(&bytes).await;
    }
}

/// The corpus serves its purpose: it holds pages that are read as well as pages that are refused.
#[test]
fn the_corpus_has_pages_of_both_sorts() {
    let read = |bytes: &Vec<u8>| scimtail::scim::envelope::split_list(&bytes.clone().into()).is_ok();
    let files = corpus("list_response");
    let good = files.iter().filter(|(_, bytes)| read(bytes)).count();
    assert!(good >= 20 && files.len() - good >= 10, "{good} of {}", files.len());
}
