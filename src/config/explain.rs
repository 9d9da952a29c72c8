//! What is wrong in a file, in one line: the place, the complaint and the nearest key. A message repeats names but never
//! values, because a value may be a secret in the wrong place.

use super::name::is_name;

/// A configuration that cannot be used: one line with the file, the line number and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// A complaint about the fields of a profile, without the name of the profile. Names the nearest key to an unknown one.
pub fn in_profile(name: &str, complaint: &str) -> String {
    let complaint = complaint.strip_prefix(&format!("profile {name}: ")).unwrap_or(complaint);
    match unknown_field(complaint) {
        Some((key, expected)) => unknown_key(&key, "", &expected),
        None => with_remedy(&without_values(complaint)),
    }
}

/// The number of the line that sets the key in the complaint: the first word that is one.
pub fn line_of(text: &str, complaint: &str) -> Option<usize> {
    let words = complaint.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).find_map(|word| {
        let sets = |line: &str| line.split_once('=').is_some_and(|(key, _)| key.trim() == word);
        text.lines().position(sets).map(|index| index + 1)
    })
}

/// The number of the line at this byte of the text.
pub fn line_at(text: &str, offset: usize) -> usize {
    text.get(..offset.min(text.len())).unwrap_or("").matches('\n').count() + 1
}

/// `file:line: message`. Names the nearest key to an unknown one.
pub fn explain(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start);
    let line = line_at(text, offset);
    let message = error.message();
    let message = match unknown_field(message) {
        Some((key, expected)) => unknown_key(&key, &section(text, line), &expected),
        None => {
            let complaint = without_values(&message.lines().collect::<Vec<_>>().join(" "));
            match complaint.starts_with("invalid ").then(|| key_of(text, offset)).flatten() {
                Some(key) => format!("`{key}`{}: {}", section(text, line), with_remedy(&complaint)),
                None => complaint,
            }
        }
    };
    ConfigError(format!("{file}:{line}: {message}"))
}

/// The key whose value begins at this byte, if nothing else is before it in its line. Part of a list may be a secret.
fn key_of(text: &str, offset: usize) -> Option<&str> {
    let before = text.get(..offset)?.rsplit('\n').next()?;
    let key = before.trim().strip_suffix('=')?.trim().trim_matches('"');
    (!key.is_empty() && is_word(key)).then_some(key)
}

/// A complaint of serde about a value, with the word of TOML for what it expects, and how to write that.
fn with_remedy(complaint: &str) -> String {
    let Some((before, expected)) = complaint.rsplit_once(", expected ") else { return complaint.to_owned() };
    let (expected, remedy) = match expected {
        "a sequence" => ("a list", "write it in brackets: [\"one\", \"two\"]"),
        "a string" => ("a string", "write it in quotes"),
        "a boolean" => ("a boolean", "write true or false, without quotes"),
        "f32" | "f64" => ("a number", "write a number, without quotes"),
        "u8" | "u16" | "u32" | "u64" | "usize" => ("a whole number of at least 0", "write one, without quotes"),
        "i8" | "i16" | "i32" | "i64" | "isize" => ("a whole number", "write one, without quotes"),
        _ => return complaint.to_owned(),
    };
    format!("{before}, expected {expected}; → {remedy}")
}

/// serde's "unknown field `x`, expected one of `a`, `b`": the key, and what is expected.
pub fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field ")?;
    let mut quoted = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    let key = quoted.next()?;
    Some((key, quoted.collect()))
}

/// The complaint about an unknown key. If the key names a secret, it says where secrets belong, else the nearest key.
fn unknown_key(key: &str, place: &str, expected: &[String]) -> String {
    // In the other sections of Kafka, secrets are properties.
    match secret_key(key).filter(|_| !place.starts_with(" in [kafka") || place == " in [kafka.oauth]") {
        Some(_) if place == " in [kafka.oauth]" => {
            format!("`{key}`{place}: secrets do not belong in this file; → client_secret_env or client_secret_file")
        }
        Some(_) if place == " in [network]" => {
            format!("`{key}`{place}: secrets do not belong in this file; → proxy_password_env or proxy_password_file")
        }
        Some(belongs) => {
            format!("`{key}`{place}: secrets do not belong in this file; → {belongs}_env or {belongs}_file")
        }
        None => {
            let told = if is_word(key) { format!(" `{key}`") } else { String::new() };
            format!("unknown key{told}{place}{}", did_you_mean(key, expected.iter().map(String::as_str)))
        }
    }
}

/// The beginning of the right keys (`…_env`, `…_file`) if a person would write a secret under `key`.
pub fn secret_key(key: &str) -> Option<&'static str> {
    let plain: String = key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    match plain.as_str() {
        "password" | "passwd" | "pass" | "pwd" => Some("password"),
        "clientsecret" => Some("client_secret"),
        "refreshtoken" => Some("refresh_token"),
        "token" | "accesstoken" | "apitoken" | "authtoken" | "bearertoken" | "scimtoken" | "secrettoken" | "bearer"
        | "apikey" | "key" | "secret" | "secretkey" | "authorization" | "credential" | "credentials" => Some("token"),
        _ => None,
    }
}

/// A message of the parser or of serde without the values that serde repeats. Any of them may be a secret in the wrong
/// place.
fn without_values(message: &str) -> String {
    // serde names last what it expected. The value before that may hold any of these words too.
    let parts = |problem: &str| {
        let (field, rest) = message.split_once(problem)?;
        let (found, expected) = rest.rsplit_once(", expected ")?;
        Some((field, found, expected))
    };
    for problem in ["invalid type: ", "invalid value: "] {
        if let Some((field, found, expected)) = parts(problem) {
            let kind = found.split(['`', '"']).next().unwrap_or("").trim_end();
            return format!("{field}{problem}{kind}, expected {expected}");
        }
    }
    match parts("unknown variant ") {
        Some((field, found, expected)) if is_word(found.trim_matches('`')) => {
            format!("{field}unknown variant {found}, expected {expected}")
        }
        Some((field, _, expected)) => format!("{field}unknown variant, expected {expected}"),
        None => message.to_owned(),
    }
}

/// Bytes of a key; every real one is shorter.
const WORD_BYTES_MAX: usize = 64;
/// How tokens of well-known vendors begin.
const TOKEN_BEGINNINGS: [&str; 7] = ["sk_", "pk_", "xox", "ghp_", "gho_", "glpat", "eyJ"];

/// True if a text of the file may be repeated: it reads like a name and has no digits, which tokens have.
pub fn is_word(text: &str) -> bool {
    text.len() <= WORD_BYTES_MAX
        && text.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '-' | '.'))
        && !TOKEN_BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
}

/// ` in [[account]] name`: the header above the line, and the name in that section.
fn section(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let above = lines.get(..line.min(lines.len())).unwrap_or(&[]);
    let headers = above.iter().enumerate().rev();
    let Some((start, header)) = headers.filter_map(|(start, line)| Some((start, header_of(line)?))).next() else {
        return String::new();
    };
    let inside = lines[start + 1..].iter().take_while(|line| header_of(line).is_none());
    let name = inside
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| key.trim() == "name")
        // A name without quotes is none, and may be anything.
        .and_then(|(_, value)| value.split('#').next()?.trim().strip_prefix('"')?.strip_suffix('"'));
    match name {
        Some(name) if is_name(name) => format!(" in {header} {name}"),
        _ => format!(" in {header}"),
    }
}

/// `[kafka]` or `[[account]]`, but not a line of a list that begins with a bracket.
fn header_of(line: &str) -> Option<&str> {
    let header = line.split('#').next()?.trim();
    let name = header.strip_prefix('[')?.strip_suffix(']')?;
    let name = name.strip_prefix('[').map_or(Some(name), |name| name.strip_suffix(']'))?;
    (!name.is_empty() && is_word(name)).then_some(header)
}

/// `; did you mean …?` for the nearest of the known words; empty if none is similar.
pub fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    const SIMILAR: f64 = 0.7;
    let nearest = known
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity >= SIMILAR);
    nearest.map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serde_says_is_told_without_the_value_that_it_found() {
        for (said, told) in [
            ("invalid type: integer `5`, expected a string", "invalid type: integer, expected a string"),
            ("a: invalid type: string \"x, expected y\", expected u64", "a: invalid type: string, expected u64"),
            ("invalid type: string \"x: y `z`\", expected f64", "invalid type: string, expected f64"),
            ("invalid type: floating point `0.5`, expected i32", "invalid type: floating point, expected i32"),
            ("invalid type: sequence, expected a string", "invalid type: sequence, expected a string"),
            ("invalid value: integer `-5`, expected u64", "invalid value: integer, expected u64"),
            ("unknown variant `magic`, expected `a` or `b`", "unknown variant `magic`, expected `a` or `b`"),
            ("a: unknown variant `sk_live_x`, expected `a`", "a: unknown variant, expected `a`"),
            ("unknown variant `4ca9ary`, expected `a` or `b`", "unknown variant, expected `a` or `b`"),
            ("missing field `kafka`", "missing field `kafka`"),
        ] {
            assert_eq!(without_values(said), told);
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_told_with_its_key_and_how_to_write_it_but_never_the_value() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only whether they can be read matters")]
        struct Keys {
            list: Option<Vec<String>>,
            text: Option<String>,
            number: Option<f64>,
            count: Option<usize>,
            partition: Option<i32>,
            switch: Option<bool>,
        }
        for (line, told) in [
            ("list = \"4ca9ary\"", "`list` in [x]: invalid type: string, expected a list; → write it in brackets"),
            ("text = 498", "`text` in [x]: invalid type: integer, expected a string; → write it in quotes"),
            ("number = \"4ca9ary\"", "`number` in [x]: invalid type: string, expected a number; → write a number"),
            ("count = -498", "`count` in [x]: invalid value: integer, expected a whole number of at least 0; → "),
            ("partition = \"498\"", "`partition` in [x]: invalid type: string, expected a whole number; → write one"),
            ("\"switch\" = \"4ca9ary\"", "`switch` in [x]: invalid type: string, expected a boolean; → write true or"),
            ("list = [\n  498\n]", "5: invalid type: integer, expected a string"),
            ("list = [\n\"canary=x\", 498]", "5: invalid type: integer, expected a string"),
            ("list = [\"canary\", 498]", "4: invalid type: integer, expected a string"),
            ("switch = sk_live_4ca9ary", "4: "),
        ] {
            let text = format!("# a line\n[x]\n\n{line}\n");
            let error = toml::from_str::<std::collections::BTreeMap<String, Keys>>(&text).unwrap_err();
            let said = explain("file", &text, &error).to_string();
            assert!(said.starts_with("file:") && said.contains(told), "{said}");
            assert!(!["4ca9ary", "canary", "498"].iter().any(|value| said.contains(value)), "{said}");
        }
    }

    #[test]
    fn the_section_of_a_line_is_the_header_above_it_and_never_a_line_of_a_list() {
        let text = "[[account]] # one\nname = \"acme\"\nattributes = [\n  [\"sk_live_4ca9ary\"],\n[1]\n]\nbogus = 1\n";
        assert_eq!(section(text, 7), " in [[account]] acme");
        assert_eq!(section("[kafka.properties]\nx = 1", 2), " in [kafka.properties]");
        assert_eq!(section("bogus = 1", 1), "");
    }
}
