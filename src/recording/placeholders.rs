//! What stands for the values of a directory: the same placeholder for the same value, of the same form.
//!
//! **Invariant:** apart from times, a placeholder depends on nothing but the form of its value and how many values came
//! before it. So no placeholder can be tested for a guessed value.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Span};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::form_urlencoded;

use super::words;
use crate::directory::NOBODY;

/// Words of a text that are replaced one by one. A longer text is replaced as a whole: how often words occur in it could
/// tell which they are.
const WORDS_MAX: usize = 12;
/// Bytes of such a text.
const TEXT_BYTES_MAX: usize = 512;
/// Digits of a placeholder for digits.
const DIGITS_MAX: usize = 64;
/// Declared names, and words that tell a company, that are remembered.
const REMEMBERED_MAX: usize = 20_000;
/// Bytes of a declared name that is kept.
const NAME_BYTES_MAX: usize = 64;
/// Letters of a word that tells a company.
const TELLING_LETTERS_MIN: usize = 3;

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// All values of one recording, and what stands for them.
pub(super) struct Placeholders {
    /// Added to all times.
    shift: SignedDuration,
    known: HashMap<String, String>,
    words: u64,
    uuids: u64,
    emails: u64,
    /// By how many digits they have.
    digits: HashMap<usize, u128>,
    /// Names and schemas of the server's own `/Schemas`, in lower case.
    declared: HashSet<String>,
    /// Words of hosts, addresses and organisations, in lower case: a name that holds one is not kept.
    telling: HashSet<String>,
    /// Parts of the pattern of group names, separated by slashes: a profile that ships has it.
    pattern: Option<Vec<Vec<String>>>,
}

impl Placeholders {
    /// `random`: 64 random bits, which are not to be kept.
    pub(super) fn new(random: u64) -> Placeholders {
        const SECOND: u64 = 1_000_000_000;
        const DAY: u64 = 86_400;
        // 30 to 1,030 days earlier, to the nanosecond.
        let nanos = (30 * DAY * SECOND) + random % (1_000 * DAY * SECOND);
        Placeholders {
            shift: -SignedDuration::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX)),
            known: HashMap::new(),
            words: 0,
            uuids: 0,
            emails: 0,
            digits: HashMap::new(),
            declared: HashSet::new(),
            telling: HashSet::new(),
            pattern: None,
        }
    }

    /// Forgets what was declared by another server. `pattern`: of group names, of a profile that ships.
    pub(super) fn next_account(&mut self, pattern: Option<&str>) {
        self.declared.clear();
        self.pattern = pattern.map(|pattern| pattern.split('/').map(fixed_words).collect());
    }

    /// A name or a schema of the server's own `/Schemas`.
    pub(super) fn declare(&mut self, name: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-:.".contains(c);
        let no_number = name.split(|c: char| !c.is_ascii_digit()).all(|digits| digits.len() < 4);
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
        let length = if is_urn(name) { 4 * NAME_BYTES_MAX } else { NAME_BYTES_MAX };
        let fits = name.len() <= length && self.declared.len() < REMEMBERED_MAX;
        if begins && no_number && fits && name.chars().all(plain) {
            self.declared.insert(name.to_ascii_lowercase());
        }
    }

    /// A text whose words tell which company this is.
    pub(super) fn tells(&mut self, text: &str) {
        /// Words of hosts that tell nothing.
        const COMMON: &str =
            "com org net www api scim example mail app cloud http https user users group groups localhost";
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() >= TELLING_LETTERS_MIN) {
            let word = word.to_lowercase();
            let letters = word.chars().any(char::is_alphabetic);
            if letters && self.telling.len() < REMEMBERED_MAX && !COMMON.split(' ').any(|common| common == word) {
                self.telling.insert(word);
            }
        }
    }

    fn is_declared(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.declared.contains(&name) && !self.telling.iter().any(|word| name.contains(word.as_str()))
    }

    /// The name of an attribute, or a path of names. One that is not known as such may be data, and is replaced as a
    /// text is: so a key that is an id is the id everywhere.
    pub(super) fn name(&mut self, name: &str) -> String {
        if words::is_name(name) || self.is_declared(name) {
            return name.to_owned();
        }
        if is_urn(name) {
            return self.urn(name);
        }
        match name.split_once('.') {
            Some((first, rest)) if words::is_name(first) || self.is_declared(first) => {
                format!("{first}.{}", self.name(rest))
            }
            _ => self.text(name),
        }
    }

    /// A schema, or the path of an attribute in one.
    pub(super) fn urn(&mut self, urn: &str) -> String {
        let known = |this: &Placeholders, urn: &str| words::is_urn(urn) || this.is_declared(urn);
        if known(self, urn) {
            return urn.to_owned();
        }
        // `urn:…:User:role.value`: the colon between schema and name is the last one, as far as the schema is known.
        if let Some((schema, name)) = urn.rsplit_once(':')
            && known(self, schema)
        {
            return format!("{schema}:{}", self.name(name));
        }
        let parts: Vec<&str> = urn.split(':').collect();
        if parts.len() > WORDS_MAX || urn.len() > TEXT_BYTES_MAX {
            return self.whole(urn);
        }
        let replaced = parts.into_iter().map(|part| match words::is_part_of_urns(part) {
            true => part.to_owned(),
            false => self.words(part),
        });
        replaced.collect::<Vec<_>>().join(":")
    }

    /// Any text.
    pub(super) fn text(&mut self, text: &str) -> String {
        if text.bytes().all(|byte| byte == b' ') || text == NOBODY {
            return text.to_owned();
        }
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let made = self.make(text);
        self.known.insert(text.to_owned(), made.clone());
        made
    }

    fn make(&mut self, text: &str) -> String {
        if is_uuid(text) {
            self.uuids += 1;
            let first = if text.bytes().any(|byte| byte.is_ascii_uppercase()) { "AAAAAAAA" } else { "aaaaaaaa" };
            return format!("{first}-0000-4000-8000-{:012}", self.uuids);
        }
        if let Some(time) = shifted(text, self.shift) {
            return time;
        }
        let spaced = text.contains(|c: char| c.is_whitespace() || c.is_control());
        if !spaced && ["http://", "https://"].iter().any(|scheme| starts_with(text, scheme)) {
            return self.url(text);
        }
        if is_urn(text) {
            return self.urn(text);
        }
        if !spaced && !text.contains('/') && is_email(text) {
            self.emails += 1;
            return format!("u{}@example.com", self.emails);
        }
        if let Some(group) = self.of_pattern(text) {
            return group;
        }
        self.words(text)
    }

    /// A group name in the pattern of the profile: its fixed parts stay.
    fn of_pattern(&mut self, text: &str) -> Option<String> {
        let pattern = self.pattern.clone()?;
        let parts: Vec<&str> = text.splitn(pattern.len(), '/').collect();
        let fits = |(fixed, part): (&Vec<String>, &&str)| fixed.is_empty() || fixed.iter().any(|word| word == part);
        if parts.len() != pattern.len() || !pattern.iter().zip(&parts).all(fits) {
            return None;
        }
        let replaced = pattern.iter().zip(parts).map(|(fixed, part)| match fixed.is_empty() {
            true => self.text(part),
            false => part.to_owned(),
        });
        Some(replaced.collect::<Vec<_>>().join("/"))
    }

    /// `https://example.com/` with a path of the same shape.
    fn url(&mut self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let path = rest.find('/').map_or("", |slash| &rest[slash..]);
        let mut made = format!("{}://example.com{}", scheme.to_ascii_lowercase(), self.path(path));
        if let Some(query) = query {
            let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
            if pairs.len() > WORDS_MAX {
                let whole = self.whole(query);
                write!(made, "?{whole}").ok();
            } else {
                let pairs: Vec<_> = pairs.iter().map(|(name, value)| self.parameter(name, value)).collect();
                let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
                write!(made, "?{query}").ok();
            }
        }
        if let Some(fragment) = fragment {
            let fragment = self.text(fragment);
            write!(made, "#{}", utf8_percent_encode(&fragment, RESERVED)).ok();
        }
        made
    }

    /// A path, or the end of one, as `$ref` has it: ids in it are what they are elsewhere.
    pub(super) fn path(&mut self, path: &str) -> String {
        let parts: Vec<&str> = path.split('/').collect();
        if parts.len() > WORDS_MAX || path.len() > TEXT_BYTES_MAX {
            return format!("/{}", self.whole(path));
        }
        let last = parts.len() - 1;
        let replaced = parts.into_iter().enumerate().map(|(place, part)| {
            let decoded = percent_decode_str(part).decode_utf8_lossy();
            let mut made = self.part_of_path(&decoded);
            // What is before an id and has letters only is the name of an endpoint. A reader sees that by its letters.
            if place < last && made != decoded && decoded.chars().all(|c| c.is_ascii_alphabetic()) {
                made = made.chars().map(|c| c.to_digit(10).map_or(c, |digit| char::from(b'a' + digit as u8))).collect();
            }
            utf8_percent_encode(&made, RESERVED).to_string()
        });
        replaced.collect::<Vec<_>>().join("/")
    }

    /// One part of a path, decoded.
    pub(super) fn part_of_path(&mut self, part: &str) -> String {
        match part {
            "" | "." | ".." => part.to_owned(),
            known if words::is_part_of_paths(known) => known.to_owned(),
            schema if is_urn(schema) => self.urn(schema),
            other => self.text(other),
        }
    }

    /// A parameter of a query.
    pub(super) fn parameter(&mut self, name: &str, value: &str) -> (String, String) {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let is_plain = value.is_empty() || ["true", "false"].contains(&value);
        let replaced = if is_plain || (is("startIndex") || is("count")) && is_number(value) {
            value.to_owned()
        } else if is("attributes") || is("excludedAttributes") {
            value.split(',').map(|path| self.name(path)).collect::<Vec<_>>().join(",")
        } else if is("filter") {
            self.filter(value)
        } else {
            self.text(value)
        };
        let name = if words::is_name(name) { name.to_owned() } else { self.text(name) };
        (name, replaced)
    }

    /// A filter as scimtail writes it: an attribute, an operator and a text in quotes.
    fn filter(&mut self, filter: &str) -> String {
        let mut parts = filter.splitn(3, ' ');
        if let (Some(path), Some(operator @ ("eq" | "ge")), Some(json)) = (parts.next(), parts.next(), parts.next())
            && let Ok(value) = serde_json::from_str::<String>(json)
        {
            let (path, value) = (self.name(path), self.text(&value));
            return format!("{path} {operator} {}", serde_json::Value::String(value));
        }
        self.whole(filter)
    }

    /// The digits of a number that may be data.
    pub(super) fn number(&mut self, number: &str) -> String {
        let (sign, rest) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if end == rest.len() && end <= DIGITS_MAX {
            return format!("{sign}{}", self.digits(rest, rest.len()));
        }
        // With a fraction or an exponent: the digits before it are new ones for the whole number. As a text it has
        // another placeholder.
        let digits = self.digits(&format!("\0number {rest}"), end);
        if end == rest.len() { format!("{sign}{digits}") } else { format!("{sign}{digits}.5") }
    }

    /// Digits for this text, `length` of them as long as there are enough.
    fn digits(&mut self, text: &str, length: usize) -> String {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let mut length = length.clamp(1, DIGITS_MAX);
        let made = loop {
            let used = self.digits.entry(length).or_default();
            let made = if length <= 30 {
                let first = 10u128.pow(u32::try_from(length).unwrap_or(0) - 1);
                if first + *used == first * 10 {
                    length += 1;
                    continue;
                }
                (first + *used).to_string()
            } else {
                format!("1{:0>width$}", *used, width = length - 1)
            };
            *used += 1;
            if made != text {
                break made;
            }
        };
        self.known.insert(text.to_owned(), made.clone());
        made
    }

    /// Replaces the words, and keeps what stands between them.
    fn words(&mut self, text: &str) -> String {
        let separates = |c: char| c == ' ' || c.is_ascii_punctuation();
        let words = text.split(separates).filter(|word| !word.is_empty()).count();
        if words > WORDS_MAX || text.len() > TEXT_BYTES_MAX {
            return self.whole(text);
        }
        let mut made = String::with_capacity(text.len());
        for piece in text.split_inclusive(separates) {
            let word = piece.trim_end_matches(separates);
            if !word.is_empty() {
                made.push_str(&self.word(word));
            }
            made.push_str(&piece[word.len()..]);
        }
        made
    }

    fn word(&mut self, word: &str) -> String {
        if is_number(word) {
            return self.digits(word, word.len());
        }
        // Beside whole texts, of which a word may be one: there is no NUL in a text that is looked up otherwise.
        let key = format!("\0{word}");
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        self.words += 1;
        let upper = |c: char| c.is_uppercase();
        let stem = match word.is_ascii() {
            false => "wörd",
            true if word.len() > 1 && word.chars().all(upper) => "WORD",
            true if word.starts_with(upper) => "Word",
            true => "word",
        };
        let made = format!("{stem}{}", self.words);
        self.known.insert(key, made.clone());
        made
    }

    /// One placeholder for all of a text.
    fn whole(&mut self, text: &str) -> String {
        let key = format!("\0\0{text}");
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        self.words += 1;
        let made = format!("text{}", self.words);
        self.known.insert(key, made.clone());
        made
    }
}

/// The words of which a part of a pattern is one; none for a part that holds anything.
fn fixed_words(part: &str) -> Vec<String> {
    match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        None => vec![part.to_owned()],
        Some(field) => {
            let choices = field.split_once(':').map(|(_, choices)| choices.split('|'));
            choices.into_iter().flatten().filter_map(|choice| Some(choice.split_once('=')?.0.to_owned())).collect()
        }
    }
}

fn starts_with(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

pub(super) fn is_urn(text: &str) -> bool {
    starts_with(text, "urn:")
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'))
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// Dates that programs write for no date, and the times beside them.
const NO_DATES: [&str; 4] = ["0001-01-01", "1900-01-01", "1970-01-01", "9999-12-31"];
const NO_TIMES: [&str; 2] = ["00:00:00", "23:59:59"];

/// A date, or a date and time, moved by `shift`, in the same format and precision. `None`: it is something else.
fn shifted(text: &str, shift: SignedDuration) -> Option<String> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let shape = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text
                .bytes()
                .zip(shape.bytes())
                .all(|(byte, of)| if of == b'0' { byte.is_ascii_digit() } else { byte == of })
    };
    if !shape(date, "0000-00-00") {
        return None;
    }
    // They are the same everywhere, so that a moved one would tell the span.
    let stands_for_none =
        NO_DATES.contains(&date) && (rest.is_empty() || rest.get(1..9).is_some_and(|time| NO_TIMES.contains(&time)));
    let shift = if stands_for_none { SignedDuration::ZERO } else { shift };
    if rest.is_empty() {
        let days = shift.as_secs() / 86_400;
        let moved = date.parse::<jiff::civil::Date>().ok()?.checked_add(Span::new().try_days(days).ok()?).ok()?;
        return Some(moved.to_string());
    }
    let (between, time, behind) = (rest.get(..1)?, rest.get(1..9)?, rest.get(9..)?);
    if !["T", "t", " "].contains(&between) || !shape(time, "00:00:00") {
        return None;
    }
    let fraction = behind.strip_prefix('.').map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        &rest[..end]
    });
    let fraction_digits = fraction.map_or(0, str::len);
    let zone = &behind[fraction.map_or(0, |digits| digits.len() + 1)..];
    let signed = |shapes: &[&str]| zone.starts_with(['+', '-']) && shapes.iter().any(|of| shape(&zone[1..], of));
    if fraction_digits > 9
        || fraction == Some("")
        || !(["", "Z", "z"].contains(&zone) || signed(&["00:00", "0000", "00"]))
    {
        return None;
    }
    let at: DateTime =
        format!("{date}T{time}{}", fraction.map(|digits| format!(".{digits}")).unwrap_or_default()).parse().ok()?;
    let moved = at.checked_add(shift).ok()?;
    let mut made = moved.strftime("%Y-%m-%d").to_string();
    write!(made, "{between}{}", moved.strftime("%H:%M:%S")).ok()?;
    if let Some(fraction) = fraction {
        let nanos = format!("{:09}", moved.subsec_nanosecond());
        // A server that always writes zeros states seconds.
        let digits = if fraction.bytes().all(|byte| byte == b'0') { fraction } else { &nanos[..fraction_digits] };
        write!(made, ".{digits}").ok()?;
    }
    // The zone would tell a place.
    made.push_str(match zone {
        "" | "Z" | "z" => zone,
        zone if zone.contains(':') => "+00:00",
        zone if zone.len() == 3 => "+00",
        _ => "+0000",
    });
    Some(made)
}
