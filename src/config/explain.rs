//! What is wrong in a file, in one line: where it stands, and the nearest key there is.

use super::ConfigError;
use super::account::is_account_name;

/// A complaint about the fields of a profile, without its name and with the nearest key for an unknown one.
pub(super) fn in_profile(name: &str, complaint: &str) -> String {
    let complaint = complaint.strip_prefix(&format!("profile {name}: ")).unwrap_or(complaint);
    match unknown_field(complaint) {
        Some((key, expected)) => {
            format!("unknown key `{key}`{}", did_you_mean(&key, expected.iter().map(String::as_str)))
        }
        None => complaint.to_owned(),
    }
}

/// The line that sets the first word of the complaint that is a key.
pub(super) fn line_of(text: &str, complaint: &str) -> Option<usize> {
    let words = complaint.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).find_map(|word| {
        let sets = |line: &str| line.split_once('=').is_some_and(|(key, _)| key.trim() == word);
        text.lines().position(sets).map(|index| index + 1)
    })
}

/// `file:line: message`, with the nearest key for an unknown one.
pub(super) fn explain(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..offset).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let message = error.message();
    let message = match unknown_field(message) {
        Some((key, expected)) => {
            format!(
                "unknown key `{key}`{}{}",
                section(text, line),
                did_you_mean(&key, expected.iter().map(String::as_str))
            )
        }
        None => message.lines().collect::<Vec<_>>().join(" "),
    };
    ConfigError(format!("{file}:{line}: {message}"))
}

/// serde's "unknown field `x`, expected one of `a`, `b`".
pub(super) fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field ")?;
    let mut quoted = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    let key = quoted.next()?;
    Some((key, quoted.collect()))
}

/// ` in [[account]] name`, found from the lines around: the header above, and the name inside.
pub(super) fn section(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let above = lines.get(..line.min(lines.len())).unwrap_or(&[]);
    let Some(start) = above.iter().rposition(|line| line.trim_start().starts_with('[')) else { return String::new() };
    let header = lines[start].split('#').next().unwrap_or("").trim();
    let inside = lines[start + 1..].iter().take_while(|line| !line.trim_start().starts_with('['));
    let name = inside
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| key.trim() == "name")
        .map(|(_, value)| value.split('#').next().unwrap_or("").trim().trim_matches('"').to_owned());
    match name {
        Some(name) if is_account_name(&name) => format!(" in {header} {name}"),
        _ => format!(" in {header}"),
    }
}

pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    const SIMILAR: f64 = 0.7;
    let nearest = known
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity >= SIMILAR);
    nearest.map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"))
}
