//! JSON values of a principal at rest, without what they repeat: addresses hold the user name, names hold the display
//! name, and the parts of lists are written alike everywhere. It halves what a user takes.
//!
//! JSON has no byte below 0x20 inside of a text (RFC 8259 §7), and canonical JSON has none between texts. Here such a byte
//! stands for one of `TEXTS` or `PHRASES`.

use uuid::Uuid;

/// How a value is written: the two lowest bits of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    /// A JSON text, without its quotes.
    Quoted,
    /// A JSON text that is a UUID as most directories write it: 16 bytes.
    Uuid,
}

const FORM_BITS: u32 = 2;
const UUID_TEXT: usize = 36;

/// The texts of a principal that its attributes repeat.
#[derive(Clone, Copy, Default)]
pub(super) struct Texts<'a> {
    pub user_name: Option<&'a str>,
    pub display_name: Option<&'a str>,
    pub external_id: Option<&'a str>,
    pub email: Option<&'a str>,
}

type TextOf = for<'a> fn(&Texts<'a>) -> Option<&'a str>;

/// Codes from 1 on; the longest that fits is taken.
const TEXTS: [TextOf; 7] = [
    |texts| texts.email,
    |texts| texts.user_name,
    |texts| texts.display_name,
    |texts| texts.external_id,
    // As in an address of another domain.
    |texts| Some(texts.email?.rsplit_once('@')?.0),
    // Mostly the given name and the family name.
    |texts| Some(texts.display_name?.split_once(' ')?.0),
    |texts| Some(texts.display_name?.split_once(' ')?.1),
];
/// A shorter text is not worth the search.
const TEXT_BYTES_MIN: usize = 3;

/// Codes behind those of the texts; of two with the same beginning the longer is first. [`may_be_phrase`] knows how they
/// begin.
const PHRASES: [&str; 16] = [
    r#"[{"primary":true,"type":"work","value":""#,
    r#"[{"primary":true,"#,
    r#"[{"display":""#,
    r#"[{"type":"work","value":""#,
    r#"[{"type":""#,
    r#"[{"value":""#,
    r#""},{"primary":false,"type":"home","value":""#,
    r#""},{"primary":false,"type":""#,
    r#""},{"primary":true,"type":"work","value":""#,
    r#""},{"display":""#,
    r#""},{"type":""#,
    r#""},{"value":""#,
    r#""}]"#,
    r#"","primary":true,"type":""#,
    r#"","type":""#,
    r#"","value":""#,
];
const FIRST_PHRASE: u8 = TEXTS.len() as u8 + 1;
/// Before a byte that stands for itself.
const ESCAPE: u8 = FIRST_PHRASE + PHRASES.len() as u8;
const FIRST_PLAIN: u8 = 0x20;
const _: () = assert!(ESCAPE < FIRST_PLAIN);

fn may_be_phrase(rest: &[u8]) -> bool {
    matches!(rest, [b'[', b'{', ..] | [b'"', b'}' | b',', ..])
}

/// Writes the values of one principal.
pub(super) struct Shortener<'a>([&'a [u8]; TEXTS.len()]);

impl<'a> Shortener<'a> {
    pub fn new(texts: &Texts<'a>) -> Shortener<'a> {
        Shortener(TEXTS.map(|text| text(texts).unwrap_or_default().as_bytes()))
    }

    /// Appends the value, and returns its length and form as one number. Equal values have equal bytes.
    pub fn put(&self, out: &mut Vec<u8>, json: &str) -> usize {
        let before = out.len();
        let form = match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            None => {
                self.put_json(out, json.as_bytes());
                Form::Plain
            }
            Some(text) => match usual_uuid(text) {
                Some(uuid) => {
                    out.extend_from_slice(uuid.as_bytes());
                    Form::Uuid
                }
                None => {
                    let rest = self.put_beginning(out, text.as_bytes());
                    self.put_json(out, rest);
                    Form::Quoted
                }
            },
        };
        (out.len() - before) << FORM_BITS | form as usize
    }

    fn put_json(&self, out: &mut Vec<u8>, mut rest: &[u8]) {
        while let Some((first, behind)) = rest.split_first() {
            let phrase = || PHRASES.iter().position(|phrase| rest.starts_with(phrase.as_bytes()));
            let place = if may_be_phrase(rest) { phrase() } else { None };
            let (ends_with, behind) = match place {
                Some(place) => {
                    out.push(FIRST_PHRASE + place as u8);
                    let phrase = PHRASES[place].as_bytes();
                    (phrase[phrase.len() - 1], &rest[phrase.len()..])
                }
                None => {
                    if *first < FIRST_PLAIN {
                        out.push(ESCAPE);
                    }
                    out.push(*first);
                    (*first, behind)
                }
            };
            rest = if ends_with == b'"' { self.put_beginning(out, behind) } else { behind };
        }
    }

    /// If a text of JSON begins as one of the principal's, writes its code and returns the rest.
    fn put_beginning<'v>(&self, out: &mut Vec<u8>, json: &'v [u8]) -> &'v [u8] {
        let is_here = |text: &&[u8]| text.len() >= TEXT_BYTES_MIN && json.starts_with(text);
        match self.0.iter().enumerate().filter(|(_, text)| is_here(text)).max_by_key(|(_, text)| text.len()) {
            Some((place, text)) => {
                out.push(place as u8 + 1);
                &json[text.len()..]
            }
            None => json,
        }
    }
}

fn usual_uuid(text: &str) -> Option<Uuid> {
    let uuid = Some(text).filter(|text| text.len() == UUID_TEXT).and_then(|text| Uuid::try_parse(text).ok())?;
    (uuid.as_hyphenated().encode_lower(&mut [0; UUID_TEXT]) == text).then_some(uuid)
}

/// A JSON value as `Shortener::put` wrote it.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    bytes: &'a [u8],
    form: Form,
    texts: Texts<'a>,
}

impl<'a> Value<'a> {
    /// How many bytes belong to a value, by the number that [`Shortener::put`] returned.
    pub(super) fn bytes_of(number: usize) -> usize {
        number >> FORM_BITS
    }

    pub(super) fn new(number: usize, bytes: &'a [u8], texts: Texts<'a>) -> Value<'a> {
        let forms = [Form::Plain, Form::Quoted, Form::Uuid];
        Value { bytes, form: forms[number % (1 << FORM_BITS)], texts }
    }

    /// Appends the JSON text.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        if self.form != Form::Plain {
            out.push(b'"');
        }
        if self.form == Form::Uuid {
            let mut text = [0; UUID_TEXT];
            out.extend_from_slice(self.uuid().as_hyphenated().encode_lower(&mut text).as_bytes());
        } else {
            self.pieces().for_each(|piece| out.extend_from_slice(piece));
        }
        if self.form != Form::Plain {
            out.push(b'"');
        }
    }

    /// Bytes of the JSON text.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        let pieces = || self.pieces().map(<[u8]>::len).sum::<usize>();
        match self.form {
            Form::Plain => pieces(),
            Form::Quoted => pieces() + 2,
            Form::Uuid => UUID_TEXT + 2,
        }
    }

    pub fn to_json(&self) -> String {
        let mut json = Vec::with_capacity(self.len());
        self.append_to(&mut json);
        String::from_utf8(json).expect("texts and phrases begin and end between characters")
    }

    fn uuid(&self) -> Uuid {
        Uuid::from_slice(self.bytes).expect("put wrote 16 bytes")
    }

    /// What the bytes stand for, in order.
    fn pieces(&self) -> impl Iterator<Item = &'a [u8]> {
        let Value { bytes: mut rest, texts, .. } = *self;
        std::iter::from_fn(move || {
            let (piece, behind) = match *rest.first()? {
                ESCAPE => rest[1..].split_at(1),
                FIRST_PLAIN.. => {
                    let end = rest.iter().position(|byte| *byte < FIRST_PLAIN).unwrap_or(rest.len());
                    rest.split_at(end)
                }
                code @ FIRST_PHRASE.. => (PHRASES[usize::from(code - FIRST_PHRASE)].as_bytes(), &rest[1..]),
                code => (TEXTS[usize::from(code - 1)](&texts).unwrap_or_default().as_bytes(), &rest[1..]),
            };
            rest = behind;
            Some(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shortened(texts: &Texts<'_>, json: &str) -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        let number = Shortener::new(texts).put(&mut bytes, json);
        assert_eq!(Value::bytes_of(number), bytes.len());
        (bytes, number)
    }

    const ANN: Texts<'static> = Texts {
        user_name: Some("ann"),
        display_name: Some("Ann Bee"),
        external_id: Some("E-7"),
        email: Some("ann.bee@acme.example"),
    };

    #[test]
    fn what_a_principal_repeats_takes_a_byte() {
        for (json, expected) in [
            (r#""Ann Bee""#, 1),
            (r#""Ann""#, 1),
            (r#""Bee""#, 1),
            (r#""E-7""#, 1),
            (r#""Annex""#, 3),
            (r#""0b0a4b2e-9b7c-4b59-8a61-4e3c1f9b7d55""#, 16),
            // As no server but a few writes it: the text itself has to be kept.
            (r#""0B0A4B2E-9B7C-4B59-8A61-4E3C1F9B7D55""#, 36),
            (r#"[{"primary":true,"type":"work","value":"ann.bee@acme.example"}]"#, 3),
            (r#"[{"value":"ann"},{"value":"ann.bee@home.example"}]"#, 4 + "@home.example".len() + 1),
            ("true", 4),
        ] {
            assert_eq!(shortened(&ANN, json).0.len(), expected, "{json}");
        }
    }

    #[test]
    fn phrases_are_found_by_how_they_begin_and_the_longer_one_first() {
        for (place, phrase) in PHRASES.iter().enumerate() {
            assert!(may_be_phrase(phrase.as_bytes()), "{phrase}");
            assert!(!PHRASES[..place].iter().any(|earlier| phrase.starts_with(earlier)), "{phrase}");
        }
    }

    proptest! {
        #[test]
        fn a_value_is_read_as_it_was_written(
            texts in proptest::collection::vec(proptest::option::of("[ab@ ]{0,4}"), 4),
            // Texts, phrases, pieces of them, and bytes that stand for something.
            parts in proptest::collection::vec(prop_oneof![
                "[ab@ ]{0,4}",
                r#"[\["\]}{,:\x00-\x20]{0,4}"#,
                ".{0,5}",
                proptest::sample::select(&PHRASES[..]).prop_map(str::to_owned),
            ], 0..8),
            is_text: bool,
        ) {
            let [user_name, display_name, external_id, email] = std::array::from_fn(|place| texts[place].as_deref());
            let texts = Texts { user_name, display_name, external_id, email };
            let json = if is_text { format!("\"{}\"", parts.concat()) } else { parts.concat() };
            let (bytes, number) = shortened(&texts, &json);
            let value = Value::new(number, &bytes, texts);
            prop_assert_eq!(value.to_json(), json.clone());
            prop_assert_eq!(value.len(), json.len());
        }
    }
}
