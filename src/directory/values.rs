//! Values of attributes as JSON text: which address is the main one, and when two values are the same.
//!
//! The reader is small and bounded: what is larger or deeper than it takes is unreadable, and so is anything that
//! RFC 8259 does not permit. Names of sub-attributes ignore case (RFC 7643 §2.1).

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};

use super::principal::json_text;

/// Bytes of a value that is read.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Arrays and objects inside each other. Each takes its share of the stack.
pub const VALUE_NESTING_MAX: usize = 16;

/// Elements of arrays that [`compatible`] pairs up; longer ones have to be equal.
const PAIRED_MAX: usize = 1_000;

/// Comparisons that one call of [`compatible`] makes: less than a second.
const COMPARISONS_MAX: usize = 1 << 23;

/// The attributes of RFC 7643 §4.1.2, of which servers also send one value without its array.
const MULTI_VALUED: [&str; 9] =
    ["emails", "phoneNumbers", "ims", "photos", "addresses", "groups", "entitlements", "roles", "x509Certificates"];

/// A value as written. Numbers keep their digits: what a server means by `1.0` is not known here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Json<'t> {
    Null,
    Bool(bool),
    Number(&'t str),
    Text(Cow<'t, str>),
    Array(Vec<Json<'t>>),
    /// In the order of the text, and with names that occur twice.
    Object(Vec<Member<'t>>),
}

type Member<'t> = (Cow<'t, str>, Json<'t>);

/// The primary address of `emails`, else the one of type `work`, else the smallest by text.
///
/// Reads what servers really send: one address or many, as texts or as objects, `primary` also as text or 1.
pub fn main_email(emails: &str) -> Option<String> {
    let elements = Json::read(emails)?.elements();
    let addresses = elements.iter().filter_map(|element| Some((rank(element), address(element)?)));
    addresses.min().map(|(_, address)| address.to_owned())
}

/// The main address before a change of the addresses: `now` and `before` are all attributes (SCIM path, JSON text) after
/// it and before it, `email` is the address after it. `None`: there was none, or nobody can tell which one it was.
///
/// Where only `emails.value` is listed, the address was chosen by what is not there, such as `primary`. Then it is told
/// only where it was the only one, or where the one of today was there already: that one most likely was it, too.
pub fn email_before<'a, A>(email: Option<&str>, now: A, before: A) -> Option<String>
where
    A: IntoIterator<Item = (&'a str, &'a str)>,
{
    let before = emails_in(before)?;
    if emails_in(now).and_then(main_email).as_deref() == email {
        return main_email(before);
    }
    let mut addresses = addresses(before);
    if addresses.len() > 1 {
        addresses.retain(|address| Some(address.as_str()) == email);
    }
    addresses.pop_first()
}

/// The value that holds the addresses. One address that is not in an array may stand there flattened.
fn emails_in<'a>(attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<&'a str> {
    let mut flattened = None;
    for (path, text) in attributes {
        if path.eq_ignore_ascii_case("emails") {
            return Some(text);
        }
        if path.eq_ignore_ascii_case("emails.value") {
            flattened = Some(text);
        }
    }
    flattened
}

fn addresses(emails: &str) -> BTreeSet<String> {
    let elements = Json::read(emails).map(Json::elements).unwrap_or_default();
    elements.iter().filter_map(address).map(str::to_owned).collect()
}

/// True where the path (RFC 7644 §3.10) is this attribute, or something in it: `emails.value` belongs to `emails`.
pub fn belongs_to(path: &str, attribute: &str) -> bool {
    path.get(..attribute.len()).is_some_and(|head| head.eq_ignore_ascii_case(attribute))
        && matches!(path.as_bytes().get(attribute.len()), None | Some(b'.'))
}

/// A JSON string as the text that it stands for; `None` for any other value.
pub fn text(json: &str) -> Option<String> {
    match Json::read(json)? {
        Json::Text(text) => Some(text.into_owned()),
        _ => None,
    }
}

/// The smaller, the more it is the main one.
fn rank(element: &Json<'_>) -> u8 {
    let is_primary = |value: &Json<'_>| match value {
        Json::Bool(primary) => *primary,
        Json::Number(digits) => *digits == "1",
        Json::Text(text) => text.eq_ignore_ascii_case("true"),
        _ => false,
    };
    let is_work = |value: &Json<'_>| value.text().is_some_and(|text| text.eq_ignore_ascii_case("work"));
    match element {
        element if element.all("primary").any(is_primary) => 0,
        element if element.all("type").any(is_work) => 1,
        _ => 2,
    }
}

fn address<'v>(element: &'v Json<'_>) -> Option<&'v str> {
    let texts = element.text().into_iter().chain(element.all("value").filter_map(Json::text));
    texts.filter(|text| !text.is_empty()).min()
}

/// The form in which two values of one attribute are compared. It leaves out what is published but is not a change:
///
/// - what is not there (RFC 7643 §2.5): null, and what is empty;
/// - `$ref`, which names a host, and beside a `value` what that one is called: `display`, `displayName`;
/// - the order of elements and of sub-attributes, the case of their names, and elements that are there twice;
/// - whether `primary` is a boolean or a text, and, of a multi-valued attribute, whether one value stands in an array
///   and whether a bare value stands in an object.
///
/// What cannot be read is its own form.
pub fn comparable<'v>(path: &str, value: &'v str) -> Cow<'v, str> {
    let is_multi_valued = MULTI_VALUED.iter().any(|name| name.eq_ignore_ascii_case(path));
    if is_multi_valued && matches!(value, "null" | "\"\"") {
        return Cow::Borrowed("[]");
    }
    if let Some(primary) = flattened_primary(path, value) {
        return Cow::Borrowed(primary);
    }
    // Without an escape a scalar is written in one way only.
    if !value.trim_start_matches(|c: char| c.is_ascii_whitespace()).starts_with(['[', '{']) && !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let Some(json) = Json::read(value) else { return Cow::Borrowed(value) };
    let is_object = matches!(json, Json::Object(_));
    let settled = match json.settled("", Twice::Once) {
        None if is_object && !is_multi_valued => Json::Object(Vec::new()),
        None => Json::Array(Vec::new()),
        Some(json) if is_multi_valued => json.into_list(),
        Some(json) => json,
    };
    let mut text = String::with_capacity(value.len());
    settled.write(&mut text);
    if text == value { Cow::Borrowed(value) } else { Cow::Owned(text) }
}

/// `primary` of one value that is not in an array, where that is a boolean written as a text.
fn flattened_primary(path: &str, value: &str) -> Option<&'static str> {
    let (_, name) = path.rsplit_once('.')?;
    let text = value.strip_prefix('"')?.strip_suffix('"').filter(|_| name.eq_ignore_ascii_case("primary"))?;
    match text {
        text if text.eq_ignore_ascii_case("true") => Some("true"),
        text if text.eq_ignore_ascii_case("false") => Some("false"),
        _ => None,
    }
}

/// True where two values agree in what both of them show, so that neither contradicts the other: a list may show less
/// of a resource than GET does.
///
/// Objects agree where the sub-attributes that both have do. Arrays agree where they are equally long, and each element
/// agrees with one of the other that is its alone. What [`comparable`] leaves out does not matter. One value agrees with
/// an array of it, and a bare value with the `value` of an object. Long arrays have to be equal.
pub fn compatible(known: &str, got: &str) -> bool {
    if comparable("", known) == comparable("", got) {
        return true;
    }
    let (Some(known), Some(got)) = (Json::read(known), Json::read(got)) else { return false };
    let (empty_known, empty_got) = (known.empty(), got.empty());
    match (known.settled("", Twice::Kept), got.settled("", Twice::Kept)) {
        (None, None) => true,
        (known, got) => {
            let (known, got) = (known.unwrap_or(empty_known), got.unwrap_or(empty_got));
            Work(COMPARISONS_MAX).agree(&known, &got).unwrap_or(false)
        }
    }
}

/// What becomes of elements that are there twice.
#[derive(Clone, Copy)]
enum Twice {
    Once,
    /// Two that show the same may differ in what they do not show.
    Kept,
}

impl<'t> Json<'t> {
    /// `None` where the text is not JSON, or more than is read.
    fn read(text: &'t str) -> Option<Json<'t>> {
        if text.len() > VALUE_BYTES_MAX {
            return None;
        }
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(VALUE_NESTING_MAX)?;
        reader.skip_space();
        (reader.at == text.len()).then_some(value)
    }

    fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The values under this name; of anything but an object none.
    fn all(&self, name: &str) -> impl Iterator<Item = &Json<'t>> {
        let members = match self {
            Json::Object(members) => members.as_slice(),
            _ => &[],
        };
        members.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Of one value that is not in an array, itself.
    fn elements(self) -> Vec<Json<'t>> {
        match self {
            Json::Array(elements) => elements,
            one => vec![one],
        }
    }

    fn is_scalar(&self) -> bool {
        !matches!(self, Json::Array(_) | Json::Object(_))
    }

    /// What of the value of this sub-attribute is compared, in one order; `None` where that is nothing.
    fn settled(self, name: &str, twice: Twice) -> Option<Json<'t>> {
        match self {
            Json::Null => None,
            Json::Text(text) if text.is_empty() => None,
            Json::Text(text) if name == "primary" => Some(boolean(text)),
            Json::Array(elements) => {
                let settle = |element: Json<'t>| element.settled("", twice);
                let mut elements: Vec<_> = elements.into_iter().filter_map(settle).collect();
                elements.sort_unstable();
                if let Twice::Once = twice {
                    elements.dedup();
                }
                (!elements.is_empty()).then_some(Json::Array(elements))
            }
            Json::Object(members) => {
                let members = settled_members(members, twice);
                (!members.is_empty()).then_some(Json::Object(members))
            }
            scalar => Some(scalar),
        }
    }

    /// A value of this kind that shows nothing.
    fn empty(&self) -> Json<'t> {
        match self {
            Json::Array(_) => Json::Array(Vec::new()),
            Json::Object(_) => Json::Object(Vec::new()),
            _ => Json::Null,
        }
    }

    /// The values of a multi-valued attribute, in the shortest way to write them: one bare value without an array.
    fn into_list(self) -> Json<'t> {
        let mut elements: Vec<_> = self.elements().into_iter().map(Json::bare).collect();
        elements.sort_unstable();
        elements.dedup();
        match elements.pop() {
            Some(one) if elements.is_empty() && one.is_scalar() => one,
            last => {
                elements.extend(last);
                Json::Array(elements)
            }
        }
    }

    /// The value of an object that has nothing else.
    fn bare(self) -> Json<'t> {
        match self {
            Json::Object(mut members) if members.len() == 1 => match members.pop() {
                Some((name, value)) if name == "value" && value.is_scalar() => value,
                other => Json::Object(other.into_iter().collect()),
            },
            other => other,
        }
    }

    fn write(&self, into: &mut String) {
        match self {
            Json::Null => into.push_str("null"),
            Json::Bool(true) => into.push_str("true"),
            Json::Bool(false) => into.push_str("false"),
            Json::Number(digits) => into.push_str(digits),
            Json::Text(text) => into.push_str(&json_text(text)),
            Json::Array(elements) => {
                into.push('[');
                for (index, element) in elements.iter().enumerate() {
                    into.push_str(if index == 0 { "" } else { "," });
                    element.write(into);
                }
                into.push(']');
            }
            Json::Object(members) => {
                into.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    into.push_str(if index == 0 { "" } else { "," });
                    into.push_str(&json_text(name));
                    into.push(':');
                    value.write(into);
                }
                into.push('}');
            }
        }
    }
}

/// `primary` as some servers write it.
fn boolean(text: Cow<'_, str>) -> Json<'_> {
    match text {
        text if text.eq_ignore_ascii_case("true") => Json::Bool(true),
        text if text.eq_ignore_ascii_case("false") => Json::Bool(false),
        text => Json::Text(text),
    }
}

fn settled_members<'t>(members: Vec<Member<'t>>, twice: Twice) -> Vec<Member<'t>> {
    let settle = |(name, value): Member<'t>| {
        let name = lower_case(name);
        let value = value.settled(&name, twice).filter(|_| name != "$ref")?;
        Some((name, value))
    };
    let mut members: Vec<_> = members.into_iter().filter_map(settle).collect();
    if members.iter().any(|(name, _)| name == "value") {
        members.retain(|(name, _)| name != "display" && name != "displayname");
    }
    members.sort_unstable();
    members.dedup();
    members
}

fn lower_case(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) { Cow::Owned(name.to_ascii_lowercase()) } else { name }
}

/// How many more comparisons are made. Every answer of `None` means that they are used up.
struct Work(usize);

impl Work {
    fn spend(&mut self, comparisons: usize) -> Option<()> {
        self.0 = self.0.checked_sub(comparisons)?;
        Some(())
    }

    fn agree(&mut self, known: &Json<'_>, got: &Json<'_>) -> Option<bool> {
        self.spend(1)?;
        match (known, got) {
            (Json::Array(known), Json::Array(got)) => self.elements_agree(known, got),
            (Json::Object(known), Json::Object(got)) => self.members_agree(known, got),
            (Json::Array(elements), one) | (one, Json::Array(elements)) => match elements.as_slice() {
                [element] => self.agree(element, one),
                _ => Some(false),
            },
            (object @ Json::Object(_), bare) | (bare, object @ Json::Object(_)) => {
                Some(object.all("value").any(|value| value == bare))
            }
            (known, got) => Some(known == got),
        }
    }

    /// Both are sorted. A name that occurs twice agrees where one of its values does.
    fn members_agree(&mut self, known: &[Member<'_>], got: &[Member<'_>]) -> Option<bool> {
        self.spend(known.len())?;
        for group in known.chunk_by(|(name, _), (next, _)| name == next) {
            let name = group.first().map(|(name, _)| name)?;
            let start = got.partition_point(|(other, _)| other < name);
            let same = got.iter().skip(start).take_while(|(other, _)| other == name);
            let mut differs = false;
            let mut agrees = false;
            for (_, other) in same {
                for (_, value) in group {
                    let agree = self.agree(value, other)?;
                    (agrees, differs) = (agrees || agree, differs || !agree);
                }
            }
            if differs && !agrees {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Whether the elements can be paired up. Both are sorted.
    fn elements_agree(&mut self, known: &[Json<'_>], got: &[Json<'_>]) -> Option<bool> {
        self.spend(known.len())?;
        if known.len() != got.len() {
            return Some(false);
        }
        if known.len() > PAIRED_MAX {
            return Some(known == got);
        }
        let mut pairs = Pairs::of_equals(known, got);
        for index in 0..known.len() {
            if pairs.of_known[index].is_none()
                && !pairs.add(index, |one, other| self.agree(&known[one], &got[other]))?
            {
                return Some(false);
            }
        }
        Some(true)
    }
}

/// Which known element is paired with which one that was got, by index.
struct Pairs {
    of_known: Vec<Option<usize>>,
    of_got: Vec<Option<usize>>,
}

impl Pairs {
    /// Most elements are the same on both sides: only the others are looked at closely.
    fn of_equals(known: &[Json<'_>], got: &[Json<'_>]) -> Pairs {
        let mut pairs = Pairs { of_known: vec![None; known.len()], of_got: vec![None; got.len()] };
        let (mut one, mut other) = (0, 0);
        while let (Some(left), Some(right)) = (known.get(one), got.get(other)) {
            let order = left.cmp(right);
            if order.is_eq() {
                pairs.pair(one, other);
            }
            one += usize::from(order.is_le());
            other += usize::from(order.is_ge());
        }
        pairs
    }

    fn pair(&mut self, known: usize, got: usize) {
        self.of_known[known] = Some(got);
        self.of_got[got] = Some(known);
    }

    /// Finds one for this element, where need be by giving others a new one (an augmenting path, by breadth).
    fn add(&mut self, known: usize, mut agree: impl FnMut(usize, usize) -> Option<bool>) -> Option<bool> {
        let len = self.of_got.len();
        // Through whom each of the other side was reached.
        let mut through: Vec<Option<usize>> = vec![None; len];
        let mut queue = VecDeque::from([known]);
        while let Some(one) = queue.pop_front() {
            // Both sides are sorted: the right one is likely near.
            for other in (one..len).chain(0..one) {
                if through[other].is_some() || !agree(one, other)? {
                    continue;
                }
                through[other] = Some(one);
                match self.of_got[other] {
                    Some(taken_by) => queue.push_back(taken_by),
                    None => {
                        self.shift(other, &through);
                        return Some(true);
                    }
                }
            }
        }
        Some(false)
    }

    /// Pairs the free one with whom it was reached through, and so on for the one that this frees.
    fn shift(&mut self, free: usize, through: &[Option<usize>]) {
        let mut next = Some(free);
        while let Some(got) = next {
            let Some(known) = through[got] else { return };
            next = self.of_known[known];
            self.pair(known, got);
        }
    }
}

/// Reads JSON (RFC 8259) from a text; `None` everywhere: it is not JSON.
struct Reader<'t> {
    text: &'t str,
    /// The byte that is next, always at the beginning of a character.
    at: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// True where this byte was next; it is then behind.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    /// `nesting`: arrays and objects that may still stand inside each other.
    fn value(&mut self, nesting: usize) -> Option<Json<'t>> {
        self.skip_space();
        match self.peek()? {
            b'{' => self.object(nesting.checked_sub(1)?),
            b'[' => self.array(nesting.checked_sub(1)?),
            b'"' => self.string().map(Json::Text),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'n' => self.word("null", Json::Null),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str, value: Json<'t>) -> Option<Json<'t>> {
        let is_it = self.text.get(self.at..)?.starts_with(word);
        self.at += word.len();
        is_it.then_some(value)
    }

    fn array(&mut self, nesting: usize) -> Option<Json<'t>> {
        let mut elements = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.take(b']') {
            return Some(Json::Array(elements));
        }
        loop {
            elements.push(self.value(nesting)?);
            if self.ends(b']')? {
                return Some(Json::Array(elements));
            }
        }
    }

    fn object(&mut self, nesting: usize) -> Option<Json<'t>> {
        let mut members = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.take(b'}') {
            return Some(Json::Object(members));
        }
        loop {
            self.skip_space();
            let name = self.string()?;
            self.skip_space();
            if !self.take(b':') {
                return None;
            }
            members.push((name, self.value(nesting)?));
            if self.ends(b'}')? {
                return Some(Json::Object(members));
            }
        }
    }

    /// Behind an element: whether it was the last one.
    fn ends(&mut self, end: u8) -> Option<bool> {
        self.skip_space();
        let is_last = self.take(end);
        (is_last || self.take(b',')).then_some(is_last)
    }

    /// Borrows up to the first escape.
    fn string(&mut self) -> Option<Cow<'t, str>> {
        if !self.take(b'"') {
            return None;
        }
        let mut text = Cow::Borrowed(self.plain()?);
        while !self.take(b'"') {
            self.at += 1;
            let decoded = self.escaped()?;
            let text = text.to_mut();
            text.push(decoded);
            text.push_str(self.plain()?);
        }
        Some(text)
    }

    /// What stands for itself, up to a quotation mark or a backslash.
    fn plain(&mut self) -> Option<&'t str> {
        let rest = self.text.get(self.at..)?;
        let length = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
        self.at += length;
        // RFC 8259 §7 wants control characters escaped.
        matches!(self.peek()?, b'"' | b'\\').then_some(())?;
        rest.get(..length)
    }

    /// The character that an escape stands for, its backslash being behind.
    fn escaped(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += 1;
        Some(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.utf16()?,
            _ => return None,
        })
    }

    /// A code unit of UTF-16, or two that make a pair. A surrogate alone stands for no character.
    fn utf16(&mut self) -> Option<char> {
        let unit = self.hexadecimal()?;
        let behind = self.at;
        let second = if self.take(b'\\') && self.take(b'u') { self.hexadecimal() } else { None };
        let decoded = second.and_then(|second| char::decode_utf16([unit, second]).next());
        match decoded {
            // Both of them only where they are a pair.
            Some(Ok(character)) if character.len_utf16() == 2 => Some(character),
            _ => {
                self.at = behind;
                Some(char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER))
            }
        }
    }

    fn hexadecimal(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        // The parser of numbers takes a sign, too.
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
        u16::from_str_radix(digits, 16).ok()
    }

    fn number(&mut self) -> Option<Json<'t>> {
        let start = self.at;
        self.take(b'-');
        let leads_with_zero = self.peek() == Some(b'0');
        let digits = self.digits();
        if digits == 0 || (digits > 1 && leads_with_zero) {
            return None;
        }
        if self.take(b'.') && self.digits() == 0 {
            return None;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            (self.digits() > 0).then_some(())?;
        }
        self.text.get(start..self.at).map(Json::Number)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_main_address_is_the_primary_else_of_type_work_else_the_smallest() {
        for (emails, main) in [
            (r#"[{"value":"b@x"},{"primary":true,"value":"c@x"},{"type":"work","value":"a@x"}]"#, Some("c@x")),
            (r#"[{"value":"a@x"},{"type":"Work","value":"c@x"},{"type":"work","value":"b@x"}]"#, Some("b@x")),
            (r#"[{"type":"home","value":"b@x"},{"value":"a@x"}]"#, Some("a@x")),
            (r#"[{"primary":true,"value":"c@x"},{"primary":true,"value":"b@x"},{"value":"a@x"}]"#, Some("b@x")),
            (r#"[{"primary":false,"value":"b@x"},{"value":"c@x"}]"#, Some("b@x")),
        ] {
            assert_eq!(main_email(emails).as_deref(), main, "{emails}");
        }
    }

    #[test]
    fn an_address_is_found_however_a_server_writes_it() {
        for (emails, main) in [
            (r#""a@x""#, Some("a@x")),
            (r#"{"value":"a@x","type":"home"}"#, Some("a@x")),
            (r#"["b@x","a@x"]"#, Some("a@x")),
            (r#"["a@x",{"TYPE":"WORK","Value":"b@x"}]"#, Some("b@x")),
            (r#"[{"value":"a@x"},{"PRIMARY":"True","Value":"b@x"}]"#, Some("b@x")),
            (r#"[{"value":"a@x"},{"primary":"true","value":"b@x"}]"#, Some("b@x")),
            (r#"[{"value":"a@x"},{"primary":1,"value":"b@x"}]"#, Some("b@x")),
            (r#"[{"value":"a@x"},{"primary":"yes","value":"b@x"},{"primary":0,"value":"c@x"}]"#, Some("a@x")),
            (r#"[{"primary":true,"value":""},{"value":"b@x"},""]"#, Some("b@x")),
            (r#"[{"primary":true},{"primary":true,"value":7},[["a@x"]],null,"b@x"]"#, Some("b@x")),
            (" [ \"a@x\" ]\r\n", Some("a@x")),
            (r#""""#, None),
            ("[]", None),
            ("7", None),
            ("null", None),
        ] {
            assert_eq!(main_email(emails).as_deref(), main, "{emails}");
        }
    }

    #[test]
    fn escapes_stand_for_their_characters() {
        for (emails, main) in [
            (r#""\u0061\u0040x\/\"\\\b\f\n\r\t""#, "a@x/\"\\\u{8}\u{c}\n\r\t"),
            (r#"{"v\u0061lue":"ü\u00fc@x"}"#, "üü@x"),
            (r#""\ud83d\uDE00@x""#, "😀@x"),
            (r#""\ud83d@x""#, "\u{fffd}@x"),
            (r#""\ude00@x""#, "\u{fffd}@x"),
            (r#""\ud83d\ud83d\ude00@x""#, "\u{fffd}😀@x"),
            (r#""\ud83d\u0041@x""#, "\u{fffd}A@x"),
            (r#""\ud83d\n@x""#, "\u{fffd}\n@x"),
            (r#""\u0041\u0042@x""#, "AB@x"),
        ] {
            assert_eq!(main_email(emails).as_deref(), Some(main), "{emails}");
        }
    }

    #[test]
    fn what_is_not_json_or_beyond_the_bounds_is_unreadable() {
        for text in [
            "",
            " ",
            "a@x",
            "[",
            "[\"a@x\"",
            "[\"a@x\",]",
            "[\"a@x\"]]",
            "[\"a@x\" \"b@x\"]",
            "[\"a@x\",tru]",
            "[\"a@x\",nulll]",
            "[\"a@x\",01]",
            "[\"a@x\",-]",
            "[\"a@x\",+1]",
            "[\"a@x\",1.]",
            "[\"a@x\",.5]",
            "[\"a@x\",1e]",
            "[\"a@x\",1ee5]",
            "{\"value\" \"a@x\"}",
            "{\"value\":}",
            "{\"value\":\"a@x\",}",
            "{value:\"a@x\"}",
            "\"a@x",
            "\"a@x\\\"",
            "\"a\n@x\"",
            "\"a@x\\x\"",
            "\"a@x\\u12\"",
            "\"a@x\\u+123\"",
            "\"a@x\\u12é\"",
            "\u{feff}\"a@x\"",
        ] {
            assert_eq!(main_email(text), None, "{text}");
            assert_eq!(comparable("emails", text), text);
        }
        let nested = |depth: usize| format!("{}\"a@x\"{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::read(&nested(VALUE_NESTING_MAX)).is_some());
        for depth in [VALUE_NESTING_MAX + 1, 100_000] {
            assert_eq!(Json::read(&nested(depth)), None);
            assert_eq!(Json::read(&"[".repeat(depth)), None);
            assert_eq!(Json::read(&"{\"a\":".repeat(depth)), None);
        }
        let long = |length: usize| format!("\"{}\"", "a".repeat(length - 2));
        assert!(main_email(&long(VALUE_BYTES_MAX)).is_some());
        assert_eq!(main_email(&long(VALUE_BYTES_MAX + 1)), None);
    }

    #[test]
    fn numbers_are_read_and_keep_their_digits() {
        for digits in ["0", "-0", "10", "1.0", "1.50", "-1e5", "1E+5", "0.1e-2", "123456789012345678901234567890"] {
            assert_eq!(Json::read(digits), Some(Json::Number(digits)));
            assert_eq!(comparable("a", &format!("[ {digits} ]")), format!("[{digits}]"));
        }
    }

    /// Before a change from the first attributes to the second, after which the address is this.
    fn told(before: &[(&str, &str)], now: &[(&str, &str)], email: Option<&str>) -> Option<String> {
        email_before(email, now.iter().copied(), before.iter().copied())
    }

    #[test]
    fn the_address_before_a_change_is_chosen_as_the_one_after() {
        let now = [("emails", r#"[{"value":"now@x"}]"#)];
        let before = |attributes: &[(&str, &str)]| told(attributes, &now, Some("now@x"));
        assert_eq!(before(&[("Emails", r#"["b@x","a@x"]"#), ("title", r#""T""#)]).as_deref(), Some("a@x"));
        assert_eq!(before(&[("emails.primary", "true"), ("emails.Value", r#""a@x""#)]).as_deref(), Some("a@x"));
        assert_eq!(before(&[("title", r#""a@x""#), ("emails.type", r#""work""#)]), None);
        assert_eq!(told(&now, &[], None).as_deref(), Some("now@x"), "none is left");
    }

    #[test]
    fn an_address_that_was_chosen_by_what_is_not_there_is_told_only_where_it_is_known() {
        let now = [("emails", r#"[{"value":"a@x"},{"value":"main@x"}]"#)];
        let before = |emails: &str| told(&[("emails", emails)], &now, Some("main@x"));
        assert_eq!(before(r#"[{"value":"a@x"},{"value":"b@x"},{"value":"main@x"}]"#).as_deref(), Some("main@x"));
        assert_eq!(before(r#"[{"value":"b@x"},{"value":"b@x"}]"#).as_deref(), Some("b@x"), "the only one");
        assert_eq!(before(r#"[{"value":"a@x"},{"value":"b@x"}]"#), None);
        assert_eq!(before("unreadable"), None);
    }

    #[test]
    fn a_path_belongs_to_its_attribute() {
        for (path, belongs) in [
            ("emails", true),
            ("Emails.value", true),
            ("emails2", false),
            ("email", false),
            ("urn:x:emails", false),
            ("", false),
        ] {
            assert_eq!(belongs_to(path, "emails"), belongs, "{path}");
        }
    }

    #[test]
    fn what_is_no_change_is_not_compared() {
        for (path, one, other) in [
            // Not there, and empty.
            ("name", r#"{"a":1,"b":null,"c":[],"d":{},"e":"","f":[null,{"g":""}]}"#, r#"{"a":1}"#),
            ("x", r#"[null,"",{},[],1]"#, "[1]"),
            // Order, case of names, twice.
            ("x", r#"[{"b":1,"A":2},3,3]"#, r#"[3,{"a":2,"B":1}]"#),
            ("x", r#"[{"value":"a","type":"t"},{"Type":"t","VALUE":"a"}]"#, r#"[{"type":"t","value":"a"}]"#),
            // What the other end of a reference is called, and where it stands.
            ("manager", r#"{"value":"1","displayName":"N","$ref":"http://a/1"}"#, r#"{"Value":"1","$REF":"b"}"#),
            ("x", r#"[{"value":"1","DISPLAY":"N","type":"t"}]"#, r#"[{"value":"1","display":"M","type":"t"}]"#),
            ("roles", r#"[{"value":"a","display":"A"},{"value":"a","display":"B"}]"#, r#""a""#),
            // `primary`.
            ("emails", r#"[{"value":"a","primary":"True"}]"#, r#"[{"value":"a","primary":true}]"#),
            ("x", r#"{"Primary":"FALSE"}"#, r#"{"primary":false}"#),
            ("emails.Primary", r#""True""#, "true"),
            // One and many, bare and in an object.
            ("EMAILS", r#""a""#, r#"[{"value":"a"}]"#),
            ("emails", r#"{"value":"a","type":"t"}"#, r#"[{"type":"t","value":"a"}]"#),
            ("roles", r#"["b",{"value":"a"}]"#, r#"["a","b"]"#),
            ("roles", r#"["a","a"]"#, r#"{"value":"a","display":"A"}"#),
            ("x509certificates", r#"[{"value":"a"}]"#, r#"["a"]"#),
            ("roles", "null", "[]"),
            ("roles", "{}", r#"[{"value":null}]"#),
            ("roles", r#""""#, "[]"),
            // Escapes.
            ("title", r#""\u0061\/""#, r#""a/""#),
            ("roles", r#""\u0061""#, r#"["a"]"#),
        ] {
            assert_eq!(comparable(path, one), comparable(path, other), "{path}: {one} {other}");
        }
    }

    #[test]
    fn what_is_a_change_is_compared() {
        for (path, one, other) in [
            ("x", r#"{"value":"a"}"#, r#"{"value":"A"}"#),
            ("x", r#"{"value":"a"}"#, r#"{"value":"a","type":"t"}"#),
            ("x", "[1]", "[1.0]"),
            ("x", "[1]", r#"["1"]"#),
            ("x", r#"{"a":true}"#, r#"{"a":"true"}"#),
            ("emails.type", "true", r#""true""#),
            ("primary", "true", r#""true""#),
            ("emails", r#"[{"value":"a","primary":true}]"#, r#"[{"value":"a","primary":false}]"#),
            // `display` that stands for itself.
            ("x", r#"[{"display":"A"}]"#, r#"[{"display":"B"}]"#),
            ("x", r#"[{"value":"","display":"A"}]"#, r#"[{"value":"","display":"B"}]"#),
            ("x", r#"{"display":"A","a":{"value":"1"}}"#, r#"{"display":"B","a":{"value":"1"}}"#),
            // One value is another thing than a list, unless the schema says that it is one.
            ("x", r#""a""#, r#"["a"]"#),
            ("x", r#"["a"]"#, r#"[{"value":"a"}]"#),
            ("roles", r#"["a","b"]"#, r#"["a"]"#),
            ("roles", r#"["a"]"#, r#"[["a"]]"#),
        ] {
            assert_ne!(comparable(path, one), comparable(path, other), "{path}: {one} {other}");
        }
    }

    #[test]
    fn what_is_comparable_already_is_not_copied() {
        for (path, value) in [
            ("title", r#""Analyst""#),
            ("emails", r#""a@x""#),
            ("x", "12"),
            ("x", "true"),
            ("x", r#"{"a":1,"b":[2,3]}"#),
            ("emails", r#"[{"type":"t","value":"a"}]"#),
            ("x", "[unreadable"),
            ("x", r#"\"#),
        ] {
            assert!(matches!(comparable(path, value), Cow::Borrowed(same) if same == value), "{value}");
        }
    }

    #[test]
    fn values_agree_in_what_both_show() {
        for (one, other) in [
            (r#""a""#, r#""\u0061""#),
            (r#"{"a":1}"#, r#"{"A":1,"b":2}"#),
            (r#"{"a":1}"#, r#"{"b":2}"#),
            (r#"{"a":null,"b":1}"#, r#"{"a":2,"B":1}"#),
            (r#"{"value":"1","display":"A"}"#, r#"{"value":"1","display":"B"}"#),
            (r#"{"primary":true}"#, r#"{"primary":"True"}"#),
            (r#"[{"value":"a"},{"value":"b"}]"#, r#"[{"value":"b","type":"t"},{"type":"u","value":"a"}]"#),
            // The first that agrees is not always the right one.
            (r#"[{"a":1},{"a":1,"b":1}]"#, r#"[{"a":1,"b":1},{"a":1,"b":2}]"#),
            (r#"[{"a":1},{"a":1,"b":1},{"b":2}]"#, r#"[{"a":1},{"a":1,"b":1},{"a":3}]"#),
            (r#""a""#, r#"[{"value":"a","type":"t"}]"#),
            (r#"{"value":"a"}"#, r#"["a"]"#),
            ("null", "[]"),
            ("{}", r#"{"a":1}"#),
            ("not JSON", "not JSON"),
            (r#"{"a":1,"A":2}"#, r#"{"a":2}"#),
            (r#"[{"value":"a"},{"value":"a"}]"#, r#"[{"value":"a","type":"t"},{"value":"a","type":"u"}]"#),
            (r#"["a","a"]"#, r#"["a"]"#),
        ] {
            assert!(compatible(one, other) && compatible(other, one), "{one} {other}");
        }
    }

    #[test]
    fn values_that_contradict_each_other_do_not_agree() {
        for (one, other) in [
            (r#""a""#, r#""b""#),
            ("1", r#""1""#),
            ("1", "1.0"),
            (r#"{"a":1,"b":1}"#, r#"{"A":2,"b":1}"#),
            (r#"["a"]"#, r#"["a","b"]"#),
            (r#"["a","b"]"#, r#"["a","c"]"#),
            (r#"[{"a":1},{"a":1}]"#, r#"[{"a":1},{"a":2}]"#),
            (r#"[{"a":1,"b":1},{"a":1,"b":2}]"#, r#"[{"a":1},{"a":2}]"#),
            ("[]", r#"["a"]"#),
            ("null", r#""a""#),
            ("not JSON", r#""a""#),
            (r#"{"a":1,"A":2}"#, r#"{"a":3}"#),
        ] {
            assert!(!compatible(one, other) && !compatible(other, one), "{one} {other}");
        }
    }

    #[test]
    fn long_arrays_have_to_be_equal() {
        let list = |count: usize, rest: &str| {
            let elements: Vec<String> = (0..count).map(|number| format!(r#"{{"value":"{number}"{rest}}}"#)).collect();
            format!("[{}]", elements.join(","))
        };
        assert!(compatible(&list(PAIRED_MAX, ""), &list(PAIRED_MAX, r#","type":"t""#)));
        assert!(!compatible(&list(PAIRED_MAX + 1, ""), &list(PAIRED_MAX + 1, r#","type":"t""#)));
        assert!(compatible(&list(PAIRED_MAX + 1, ""), &list(PAIRED_MAX + 1, r#","display":"d""#)));
    }

    #[test]
    fn values_that_take_too_long_to_compare_are_given_up() {
        let read = |text| Json::read(text).expect("it is JSON");
        let (one, other) = (read(r#"[{"a":1},{"a":2}]"#), read(r#"[{"a":2,"b":1},{"a":1,"b":1}]"#));
        let agree = |comparisons| Work(comparisons).agree(&one, &other);
        assert_eq!((agree(0), agree(5), agree(100)), (None, None, Some(true)));
        // Inside each other: each of 300 with each of 300, and so their elements.
        let list = |name: &str| {
            let inner: Vec<String> = (0..300).map(|number| format!(r#"{{"{name}":{number}}}"#)).collect();
            let inner = inner.join(",");
            let outer: Vec<String> = (0..100).map(|number| format!(r#"[{{"value":{number}}},{inner}]"#)).collect();
            format!("[{}]", outer.join(","))
        };
        let (one, other) = (list("a"), list("a").replace("\"a\":299", "\"a\":300"));
        let started = std::time::Instant::now();
        compatible(&one, &other);
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }

    /// JSON of any shape, with names and texts that servers send.
    fn json() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::{Value, json};
        let texts = ["", "a", "b", "True", "false", "ä\u{1}\"\\", "\u{1f600}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from),
            Just(json!(1.5)),
            proptest::sample::select(texts.to_vec()).prop_map(Value::from),
        ];
        let names = ["value", "Value", "type", "display", "displayName", "$ref", "primary", "Primary"];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            let name = proptest::sample::select(names.to_vec()).prop_map(str::to_owned);
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(name, inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn path() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec!["emails", "Roles", "manager", "urn:x:roles", "emails.primary"])
    }

    fn shuffled<T>(mut parts: Vec<T>, random: &mut fastrand::Rng) -> Vec<T> {
        random.shuffle(&mut parts);
        parts
    }

    /// The same value in another order, with other cases of names, with spaces.
    fn otherwise(value: &serde_json::Value, random: &mut fastrand::Rng) -> String {
        let space = [" ", "", "\n"][random.usize(..3)];
        match value {
            serde_json::Value::Array(elements) => {
                let elements = elements.iter().map(|element| otherwise(element, random)).collect();
                format!("[{space}{}]{space}", shuffled(elements, random).join(","))
            }
            serde_json::Value::Object(members) => {
                let members = members.iter().map(|(name, value)| {
                    let name = if random.bool() { name.to_ascii_uppercase() } else { name.clone() };
                    format!("{space}{}{space}:{}", json_text(&name), otherwise(value, random))
                });
                let members = members.collect();
                format!("{{{}}}", shuffled(members, random).join(","))
            }
            scalar => format!("{scalar}{space}"),
        }
    }

    type Shown = BTreeMap<String, u8>;

    /// Small objects, of which many agree with many.
    fn objects() -> impl Strategy<Value = Vec<Shown>> {
        let object = proptest::collection::btree_map("[abc]", 0..3u8, 1..4);
        proptest::collection::vec(object, 1..6)
    }

    fn list(objects: &[Shown]) -> String {
        serde_json::to_string(objects).expect("it is JSON")
    }

    /// Whether the first agrees with one of the others so that the rest agree with the rest.
    fn pair_up(known: &[Shown], got: &[Shown]) -> bool {
        let Some((first, rest)) = known.split_first() else { return got.is_empty() };
        (0..got.len()).any(|index| {
            let agrees = first.iter().all(|(name, value)| got[index].get(name).is_none_or(|other| other == value));
            let mut others = got.to_vec();
            others.remove(index);
            agrees && pair_up(rest, &others)
        })
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_a_parser_of_json_reads(text in "[ \\[\\]{}\",:a\\\\u0-9.eE+truefalsn-]{0,24}") {
            let (read, parsed) = (Json::read(&text), serde_json::from_str::<serde_json::Value>(&text));
            // It refuses lone surrogates and numbers that are too large for it.
            let refused = read.is_some() && text.contains(['u', 'e', 'E']);
            prop_assert!(read.is_some() == parsed.is_ok() || refused, "{}", text);
        }

        #[test]
        fn nothing_panics_on_arbitrary_text(path in path(), text in any::<String>(), other in "[\\[{\"].{0,40}") {
            for text in [&text, &other] {
                main_email(text);
                let once = comparable(path, text).into_owned();
                prop_assert_eq!(comparable(path, &once).into_owned(), once);
                prop_assert!(compatible(text, text));
                compatible(&other, text);
            }
        }

        #[test]
        fn json_is_read_as_a_parser_of_json_reads_it(value in json()) {
            let text = value.to_string();
            let mut written = String::new();
            Json::read(&text).expect("it is JSON").write(&mut written);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&written).expect("it is JSON"), value);
        }

        #[test]
        fn the_comparable_form_is_its_own_and_knows_no_order(path in path(), value in json(), seed: u64) {
            let text = value.to_string();
            let once = comparable(path, &text).into_owned();
            prop_assert_eq!(comparable(path, &once).into_owned(), once.clone());
            let other = otherwise(&value, &mut fastrand::Rng::with_seed(seed));
            if value.is_array() || value.is_object() {
                prop_assert_eq!(comparable(path, &other).into_owned(), once);
            }
            prop_assert!(compatible(&text, &other), "{} {}", text, other);
        }

        #[test]
        fn what_compares_as_the_same_has_the_same_main_address(value in json()) {
            let text = value.to_string();
            prop_assert_eq!(main_email(&text), main_email(&comparable("emails", &text)));
        }

        #[test]
        fn one_value_is_a_list_of_one(value in json()) {
            if !value.is_array() {
                let (one, list) = (value.to_string(), format!("[{value}]"));
                prop_assert_eq!(comparable("emails", &one), comparable("emails", &list));
            }
        }

        #[test]
        fn elements_agree_where_some_way_to_pair_them_up_does(known in objects(), got in objects()) {
            let distinct = |objects: &[Shown]| objects.iter().cloned().collect::<BTreeSet<Shown>>();
            let expected = pair_up(&known, &got) || distinct(&known) == distinct(&got);
            prop_assert_eq!(compatible(&list(&known), &list(&got)), expected);
            prop_assert_eq!(compatible(&list(&got), &list(&known)), expected);
        }

        #[test]
        fn who_shows_less_contradicts_nobody(got in objects(), seed: u64) {
            let random = &mut fastrand::Rng::with_seed(seed);
            let mut known = got.clone();
            for object in &mut known {
                while object.len() > 1 && random.bool() {
                    object.pop_first();
                }
            }
            let known = shuffled(known, random);
            prop_assert!(compatible(&list(&known), &list(&got)), "{:?} {:?}", known, got);
        }
    }
}
