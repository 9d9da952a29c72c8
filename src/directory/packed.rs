//! A principal at rest: one allocation instead of a dozen, so that a directory of a million users
//! fits into memory. Unpacked only when its bytes changed.

use super::principal::{Id, Principal};
use super::shortened::{Shortener, Texts, Value};

/// A path of the enterprise extension (`principal::ENTERPRISE`).
macro_rules! enterprise {
    ($name:literal) => {
        concat!("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:", $name)
    };
}

/// Paths that nearly every user has, sorted: stored as one byte, their place + 1. A path that is spelled follows a byte 0.
const COMMON: [&str; 16] = [
    "emails",
    "entitlements",
    "name.familyName",
    "name.formatted",
    "name.givenName",
    "roles",
    "title",
    enterprise!("costCenter"),
    enterprise!("department"),
    enterprise!("division"),
    enterprise!("employeeNumber"),
    enterprise!("manager"),
    enterprise!("manager.displayName"),
    enterprise!("manager.value"),
    enterprise!("organization"),
    "userType",
];

/// What is there, and what it says: bits of the first byte.
const IS_STATED: u8 = 1;
const IS_ACTIVE: u8 = 1 << 1;
const HAS_CREATED: u8 = 1 << 2;
const HAS_LAST_MODIFIED: u8 = 1 << 3;
const EMAIL_IS_USER_NAME: u8 = 1 << 4;

/// About what the fields of a user take.
const PACKED_BYTES: usize = 512;

/// All of a [`Principal`] but its id. Equal principals have equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedPrincipal(Box<[u8]>);

impl PackedPrincipal {
    pub fn pack(principal: &Principal) -> PackedPrincipal {
        let Principal { user_name, display_name, external_id, email, active, created, last_modified, .. } = principal;
        let fields = Fields {
            user_name: user_name.as_deref(),
            display_name: display_name.as_deref(),
            external_id: external_id.as_deref(),
            email: email.as_deref(),
            active: *active,
            created: *created,
            last_modified: *last_modified,
            lists: &[],
        };
        let attributes = principal.attributes.iter().map(|(path, value)| (path.as_str(), value.as_str()));
        fields.pack(attributes, principal.omitted.iter().map(String::as_str))
    }

    pub fn borrowed(&self) -> Packed<'_> {
        Packed(&self.0)
    }

    /// As [`Packed::fields`].
    pub fn fields(&self) -> Fields<'_> {
        self.borrowed().fields()
    }
}

/// A [`PackedPrincipal`], borrowed: alone, or as a part of an entry at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    pub fn to_owned(self) -> PackedPrincipal {
        PackedPrincipal(self.0.into())
    }

    pub fn unpack(self, id: Id) -> Principal {
        self.fields().to_principal(id)
    }

    /// The same, read in place: a look at one field of every principal allocates nothing.
    pub fn fields(self) -> Fields<'a> {
        let mut reader = Reader(self.0);
        let flags = reader.byte();
        let is = |flag: u8| flags & flag != 0;
        let [user_name, display_name, external_id] = std::array::from_fn(|_| reader.optional());
        Fields {
            user_name,
            display_name,
            external_id,
            email: if is(EMAIL_IS_USER_NAME) { user_name } else { reader.optional() },
            active: is(IS_STATED).then_some(is(IS_ACTIVE)),
            created: is(HAS_CREATED).then(|| reader.integer()),
            last_modified: is(HAS_LAST_MODIFIED).then(|| reader.integer()),
            lists: reader.0,
        }
    }

    /// `active`, without a look at anything else.
    pub fn active(self) -> Option<bool> {
        let flags = Reader(self.0).byte();
        (flags & IS_STATED != 0).then_some(flags & IS_ACTIVE != 0)
    }

    /// Apart from the id.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// The fields of a [`PackedPrincipal`], borrowed from it; they mean what those of [`Principal`] mean.
#[derive(Clone, Copy, Default)]
pub struct Fields<'a> {
    pub user_name: Option<&'a str>,
    pub display_name: Option<&'a str>,
    pub external_id: Option<&'a str>,
    pub email: Option<&'a str>,
    pub active: Option<bool>,
    pub created: Option<i64>,
    pub last_modified: Option<i64>,
    /// Attributes, then omitted paths.
    lists: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields with other attributes, which are sorted by path, and other omitted paths.
    pub fn pack<'b>(
        &self,
        attributes: impl ExactSizeIterator<Item = (&'b str, &'b str)>,
        omitted: impl ExactSizeIterator<Item = &'b str>,
    ) -> PackedPrincipal {
        let mut bytes = Vec::with_capacity(PACKED_BYTES);
        let email_is_user_name = self.email.is_some() && self.email == self.user_name;
        let flags = [
            (IS_STATED, self.active.is_some()),
            (IS_ACTIVE, self.active == Some(true)),
            (HAS_CREATED, self.created.is_some()),
            (HAS_LAST_MODIFIED, self.last_modified.is_some()),
            (EMAIL_IS_USER_NAME, email_is_user_name),
        ];
        bytes.push(flags.into_iter().filter(|(_, is_set)| *is_set).fold(0, |flags, (flag, _)| flags | flag));
        for field in [self.user_name, self.display_name, self.external_id] {
            put_optional(&mut bytes, field);
        }
        if !email_is_user_name {
            put_optional(&mut bytes, self.email);
        }
        for time in [self.created, self.last_modified].into_iter().flatten() {
            put_integer(&mut bytes, time);
        }
        put_number(&mut bytes, attributes.len());
        let (shortener, mut short) = (Shortener::new(&self.texts()), Vec::with_capacity(PACKED_BYTES));
        let mut behind = 0;
        for (path, value) in attributes {
            behind = put_path(&mut bytes, path, behind);
            short.clear();
            put_number(&mut bytes, shortener.put(&mut short, value));
            bytes.extend_from_slice(&short);
        }
        put_number(&mut bytes, omitted.len());
        for path in omitted {
            put(&mut bytes, path);
        }
        // A copy: cut to its length, the allocation would stay as large as it is.
        PackedPrincipal(bytes.as_slice().into())
    }

    fn texts(&self) -> Texts<'a> {
        let Fields { user_name, display_name, external_id, email, .. } = *self;
        Texts { user_name, display_name, external_id, email }
    }

    /// The same without the server's times.
    pub fn without_times(self) -> Fields<'a> {
        Fields { created: None, last_modified: None, ..self }
    }

    /// As [`Principal::name`].
    pub fn name(&self) -> Option<&'a str> {
        self.user_name.or(self.display_name)
    }

    pub fn to_principal(&self, id: Id) -> Principal {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Principal {
            id,
            user_name: owned(self.user_name),
            display_name: owned(self.display_name),
            active: self.active,
            external_id: owned(self.external_id),
            email: owned(self.email),
            created: self.created,
            last_modified: self.last_modified,
            attributes: self.attributes().map(|(path, value)| (path.to_owned(), value.to_json())).collect(),
            omitted: self.omitted().map(str::to_owned).collect(),
        }
    }

    /// SCIM path and JSON value, sorted by path.
    pub fn attributes(&self) -> impl ExactSizeIterator<Item = (&'a str, Value<'a>)> + Clone + use<'a> {
        let (mut reader, texts) = (Reader(self.lists), self.texts());
        let count = reader.number();
        (0..count).map(move |_| (reader.path(), reader.value(texts)))
    }

    /// Paths of the attributes that are left out because the principal would be too large.
    pub fn omitted(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        let mut reader = Reader(self.lists);
        for _ in 0..reader.number() {
            reader.path();
            reader.value(Texts::default());
        }
        let count = reader.number();
        (0..count).map(move |_| reader.text())
    }

    /// True where [`Principal::published`] has the path.
    pub fn holds(&self, path: &str) -> bool {
        let field = match path {
            "userName" => self.user_name.is_some(),
            "displayName" => self.display_name.is_some(),
            "active" => self.active.is_some(),
            "externalId" => self.external_id.is_some(),
            "meta.created" => self.created.is_some(),
            _ => false,
        };
        field || self.attributes().any(|(held, _)| held == path)
    }
}

pub(super) fn put_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

/// `behind`: the place in [`COMMON`] behind the path before, as paths come in their order. Returns that of this one.
fn put_path(bytes: &mut Vec<u8>, path: &str, behind: usize) -> usize {
    match COMMON[behind..].iter().position(|common| *common == path) {
        Some(place) => {
            bytes.push((behind + place) as u8 + 1);
            behind + place + 1
        }
        None => {
            bytes.push(0);
            put(bytes, path);
            behind
        }
    }
}

/// Length + 1, so that absent (0) and empty (1) differ.
fn put_optional(bytes: &mut Vec<u8>, text: Option<&str>) {
    put_number(bytes, text.map_or(0, |text| text.len() + 1));
    bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
}

/// How many bytes follow, then those of the number that are not 0: six for the times of our days.
pub(super) fn put_integer(bytes: &mut Vec<u8>, number: i64) {
    let all = number.to_be_bytes();
    let first = all.iter().position(|byte| *byte != 0).unwrap_or(all.len());
    bytes.push((all.len() - first) as u8);
    bytes.extend_from_slice(&all[first..]);
}

/// Reads what `pack` wrote; the bytes never leave this process, so they are always well-formed.
#[derive(Clone)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn of(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// All that is left.
    pub fn principal(self) -> Packed<'a> {
        Packed(self.0)
    }

    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().expect("packed bytes end where pack ended them");
        self.0 = rest;
        *first
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(length);
        self.0 = rest;
        head
    }

    pub fn number(&mut self) -> usize {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let byte = self.byte();
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }

    fn str(&mut self, length: usize) -> &'a str {
        std::str::from_utf8(self.take(length)).expect("pack wrote UTF-8")
    }

    fn text(&mut self) -> &'a str {
        let length = self.number();
        self.str(length)
    }

    fn path(&mut self) -> &'a str {
        match self.byte() {
            0 => self.text(),
            place => COMMON[usize::from(place - 1)],
        }
    }

    fn value(&mut self, texts: Texts<'a>) -> Value<'a> {
        let number = self.number();
        Value::new(number, self.take(Value::bytes_of(number)), texts)
    }

    fn optional(&mut self) -> Option<&'a str> {
        let length = self.number();
        (length > 0).then(|| self.str(length - 1))
    }

    pub fn integer(&mut self) -> i64 {
        let length = usize::from(self.byte());
        let mut all = [0; 8];
        all[8 - length..].copy_from_slice(self.take(length));
        i64::from_be_bytes(all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::principal::{AttributeList, ENTERPRISE};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn common_paths_are_as_the_default_list_spells_them() {
        let list = AttributeList::default();
        for path in COMMON {
            assert!(list.paths().iter().any(|listed| path.starts_with(listed.as_str())), "{path}");
        }
        assert!(COMMON.is_sorted());
        assert!(enterprise!("x").starts_with(ENTERPRISE));
    }

    proptest! {
        #[test]
        fn a_packed_principal_unpacks_to_itself(
            names in proptest::collection::vec(proptest::option::of(".{0,200}"), 4),
            active: Option<bool>,
            created: Option<i64>,
            attributes in proptest::collection::btree_map("[a-z.]{1,20}", ".{0,300}", 0..5),
            department in ".*",
            omitted in proptest::collection::vec("[a-z]{1,5}", 0..3),
            common in proptest::sample::subsequence(&COMMON, 0..COMMON.len()),
        ) {
            let mut principal = Principal::new("id");
            principal.user_name = names[0].clone();
            principal.display_name = names[1].clone();
            principal.external_id = names[2].clone();
            principal.email = names[3].clone();
            principal.active = active;
            principal.created = created;
            principal.attributes = attributes;
            principal.attributes.extend(common.into_iter().map(|path| (path.to_owned(), department.clone())));
            principal.attributes.insert(format!("{ENTERPRISE}other"), department);
            principal.omitted = omitted;
            let packed = PackedPrincipal::pack(&principal);
            prop_assert_eq!(packed.borrowed().unpack("id".into()), principal.clone());
            let fields = packed.fields();
            prop_assert_eq!((fields.name(), fields.active), (principal.name(), principal.active));
            prop_assert_eq!(packed.borrowed().active(), principal.active);
            let published = principal.published();
            let paths = ["userName", "displayName", "active", "externalId", "meta.created", "email", "omitted"];
            for path in paths.into_iter().chain(principal.attributes.keys().map(String::as_str)) {
                prop_assert_eq!(fields.holds(path), published.contains_key(path), "{}", path);
            }
        }
    }
}
