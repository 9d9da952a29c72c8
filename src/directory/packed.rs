//! A principal at rest: one allocation instead of a dozen, so that a directory of a million users
//! fits into memory. Unpacked only when its bytes changed.

use super::principal::{ENTERPRISE, Id, Principal};

/// Replaces [`ENTERPRISE`] at the head of an attribute's path; no SCIM path begins with it.
const ENTERPRISE_MARK: char = '\u{1}';

/// All of a [`Principal`] but its id. Equal principals have equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedPrincipal(Box<[u8]>);

impl PackedPrincipal {
    pub fn pack(principal: &Principal) -> PackedPrincipal {
        let mut bytes = Vec::with_capacity(256);
        for field in [&principal.user_name, &principal.display_name, &principal.external_id, &principal.email] {
            put_optional(&mut bytes, field.as_deref());
        }
        bytes.push(match principal.active {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        });
        for time in [principal.created, principal.last_modified] {
            bytes.push(u8::from(time.is_some()));
            bytes.extend(time.iter().flat_map(|millis| millis.to_be_bytes()));
        }
        put_length(&mut bytes, principal.attributes.len());
        for (path, value) in &principal.attributes {
            match path.strip_prefix(ENTERPRISE) {
                Some(rest) => put(&mut bytes, &format!("{ENTERPRISE_MARK}{rest}")),
                None => put(&mut bytes, path),
            }
            put(&mut bytes, value);
        }
        put_length(&mut bytes, principal.omitted.len());
        for path in &principal.omitted {
            put(&mut bytes, path);
        }
        PackedPrincipal(bytes.into_boxed_slice())
    }

    pub fn unpack(&self, id: Id) -> Principal {
        let mut reader = Reader(&self.0);
        let mut principal = Principal::new(id);
        principal.user_name = reader.optional();
        principal.display_name = reader.optional();
        principal.external_id = reader.optional();
        principal.email = reader.optional();
        principal.active = match reader.byte() {
            0 => None,
            active => Some(active == 2),
        };
        principal.created = reader.time();
        principal.last_modified = reader.time();
        for _ in 0..reader.length() {
            let path = reader.text();
            let path = match path.strip_prefix(ENTERPRISE_MARK) {
                Some(rest) => format!("{ENTERPRISE}{rest}"),
                None => path.to_owned(),
            };
            let value = reader.text().to_owned();
            principal.attributes.insert(path, value);
        }
        for _ in 0..reader.length() {
            principal.omitted.push(reader.text().to_owned());
        }
        principal
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes at rest, apart from the id.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

fn put_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

fn put(bytes: &mut Vec<u8>, text: &str) {
    put_length(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

/// Length + 1, so that absent (0) and empty (1) differ.
fn put_optional(bytes: &mut Vec<u8>, text: Option<&str>) {
    put_length(bytes, text.map_or(0, |text| text.len() + 1));
    bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
}

/// Reads what `pack` wrote; the bytes never leave this process, so they are always well-formed.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().expect("packed bytes end where pack ended them");
        self.0 = rest;
        *first
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(length);
        self.0 = rest;
        head
    }

    fn length(&mut self) -> usize {
        let mut length = 0;
        for shift in (0..).step_by(7) {
            let byte = self.byte();
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        length
    }

    fn str(&mut self, length: usize) -> &'a str {
        std::str::from_utf8(self.take(length)).expect("pack wrote UTF-8")
    }

    fn text(&mut self) -> &'a str {
        let length = self.length();
        self.str(length)
    }

    fn optional(&mut self) -> Option<String> {
        let length = self.length();
        (length > 0).then(|| self.str(length - 1).to_owned())
    }

    fn time(&mut self) -> Option<i64> {
        (self.byte() == 1).then(|| i64::from_be_bytes(self.take(8).try_into().expect("eight bytes")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_packed_principal_unpacks_to_itself(
            names in proptest::collection::vec(proptest::option::of(".{0,200}"), 4),
            active: Option<bool>,
            created: Option<i64>,
            attributes in proptest::collection::btree_map("[a-z.]{1,20}", ".{0,300}", 0..5),
            department in ".*",
            omitted in proptest::collection::vec("[a-z]{1,5}", 0..3),
        ) {
            let mut principal = Principal::new("id");
            principal.user_name = names[0].clone();
            principal.display_name = names[1].clone();
            principal.external_id = names[2].clone();
            principal.email = names[3].clone();
            principal.active = active;
            principal.created = created;
            principal.attributes = attributes;
            principal.attributes.insert(format!("{ENTERPRISE}department"), department);
            principal.omitted = omitted;
            prop_assert_eq!(PackedPrincipal::pack(&principal).unpack("id".into()), principal);
        }
    }
}
