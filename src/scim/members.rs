//! Members of a group and groups of a user, as servers really list them.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::value::{id, is_nothing};
use crate::directory::{Kind, ListedGroup, ListedMember};
use crate::json::{Bounded, Fields, Text, text};

/// Groups of one user.
pub const GROUPS_MAX: usize = 100_000;
/// Members of one group; the largest that a vendor documents are 290,000.
pub const MEMBERS_MAX: usize = 1_000_000;

/// The members that a group lists.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Sorted, each once.
    pub listed: Vec<ListedMember>,
    /// Members whose stated kind is neither user nor group.
    pub others: usize,
}

/// Reads `members` of a group. `paths`: what the paths of users and groups end in.
///
/// # Errors
/// It is not a list of members, or one of them has no usable id.
pub(super) fn read_members(raw: &RawValue, paths: &[String; 2]) -> Result<Members, ()> {
    let mut reader = MemberReader { paths, members: Members::default() };
    if raw.get().starts_with('{') {
        reader.take(&serde_json::from_str(raw.get()).map_err(|_| ())?)?;
    } else if !is_nothing(raw) {
        let mut json = serde_json::Deserializer::from_str(raw.get());
        (&mut reader).deserialize(&mut json).map_err(|_| ())?;
    }
    let mut members = reader.members;
    members.listed.sort_unstable();
    members.listed.dedup_by(|a, b| (&a.id, a.kind) == (&b.id, b.kind));
    Ok(members)
}

/// Reads `groups` of a user.
///
/// # Errors
/// It is not a list of groups, or one of them has neither an id nor a name.
pub(super) fn read_groups(raw: &RawValue) -> Result<Vec<ListedGroup>, ()> {
    if is_nothing(raw) {
        return Ok(Vec::new());
    }
    let one = raw.get().starts_with('{').then(|| vec![raw]);
    let groups = match one {
        Some(one) => one,
        None => serde_json::from_str::<Bounded<&RawValue, GROUPS_MAX>>(raw.get()).map_err(|_| ())?.0,
    };
    let mut listed = Vec::new();
    for group in groups.into_iter().filter(|group| !is_nothing(group)) {
        let fields = Fields::of(group).ok_or(())?;
        let said = |name: &str| fields.get(name).and_then(text);
        let direct = match said("type").as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("direct") => Some(true),
            Some("indirect") => Some(false),
            _ => None,
        };
        let value = fields.get("value").filter(|raw| raw.get() != "null");
        let id = value.map(|raw| id(raw).ok_or(())).transpose()?;
        let name = said("display").map(Cow::into_owned);
        if id.is_none() && name.is_none() {
            return Err(());
        }
        listed.push(ListedGroup { id, name, direct });
    }
    listed.sort_unstable();
    listed.dedup();
    Ok(listed)
}

/// The kind that a member states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stated {
    Kind(Kind),
    Nothing,
    /// A service principal, a device, …: it is not a principal here.
    Other,
}

/// A member as a group lists it (RFC 7643 §4.2), names in any case.
struct MemberWire<'a> {
    value: Option<&'a RawValue>,
    r#type: Option<Text<'a>>,
    reference: Option<Text<'a>>,
    /// Fields that it has at all.
    fields: usize,
}

/// A text; any other value counts as nothing.
struct TextOrNothing<'a>(Option<Text<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for TextOrNothing<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(TextOrNothing(text(raw).map(Text)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for MemberWire<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = MemberWire<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut member = MemberWire { value: None, r#type: None, reference: None, fields: 0 };
                while let Some(Text(name)) = map.next_key()? {
                    member.fields += 1;
                    if name.eq_ignore_ascii_case("value") {
                        let value: &RawValue = map.next_value()?;
                        if member.value.is_some_and(|other| other.get() != value.get()) {
                            return Err(A::Error::custom("a member with two ids"));
                        }
                        member.value = Some(value);
                    } else if name.eq_ignore_ascii_case("type") {
                        member.r#type = map.next_value::<TextOrNothing<'_>>()?.0;
                    } else if name.eq_ignore_ascii_case("$ref") {
                        member.reference = map.next_value::<TextOrNothing<'_>>()?.0;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(member)
            }

            // Some servers write null for an absent member.
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(MemberWire { value: None, r#type: None, reference: None, fields: 0 })
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

/// Reads the members one by one: a list of what the server wrote would be several times as large. The first member
/// without an id ends the reading.
struct MemberReader<'p> {
    /// What the paths of users and groups end in.
    paths: &'p [String; 2],
    members: Members,
}

impl MemberReader<'_> {
    fn take(&mut self, member: &MemberWire<'_>) -> Result<(), ()> {
        if member.fields == 0 {
            return Ok(());
        }
        let kind = match stated_kind(member, self.paths) {
            Stated::Other => {
                self.members.others += 1;
                return Ok(());
            }
            Stated::Kind(kind) => Some(kind),
            Stated::Nothing => None,
        };
        let id = member.value.and_then(id).ok_or(())?;
        self.members.listed.push(ListedMember { id, kind, direct: None });
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut MemberReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut MemberReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of members")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let mut elements = 0;
        while let Some(member) = array.next_element::<MemberWire<'_>>()? {
            elements += 1;
            if elements > MEMBERS_MAX {
                return Err(A::Error::custom("too many members"));
            }
            self.take(&member).map_err(|()| A::Error::custom("a member without an id"))?;
        }
        Ok(())
    }
}

/// By `type`, else by the endpoint that `$ref` names.
fn stated_kind(member: &MemberWire<'_>, paths: &[String; 2]) -> Stated {
    let by_type = member.r#type.as_ref().map_or(Stated::Nothing, |Text(said)| kind_of_type(said));
    match by_type {
        Stated::Kind(_) => by_type,
        Stated::Nothing | Stated::Other => match member.reference.as_ref().map(|Text(said)| kind_of_ref(said, paths)) {
            Some(by_ref @ Stated::Kind(_)) => by_ref,
            Some(Stated::Other) => Stated::Other,
            Some(Stated::Nothing) | None => by_type,
        },
    }
}

fn kind_of_type(said: &str) -> Stated {
    // Some write the resource type's URN.
    match said.rsplit(':').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "user" | "users" => Stated::Kind(Kind::User),
        "group" | "groups" => Stated::Kind(Kind::Group),
        // The way of being a member, not the kind of the member.
        "" | "direct" | "indirect" | "member" => Stated::Nothing,
        _ => Stated::Other,
    }
}

/// `…/Users/ID` names an endpoint; a part such as `v2`, or one for all kinds, names none.
fn kind_of_ref(said: &str, paths: &[String; 2]) -> Stated {
    const OF_ALL_KINDS: [&str; 4] = ["directoryobjects", "members", "resources", "scim"];
    let path = said.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let Some((head, _)) = path.rsplit_once('/') else { return Stated::Nothing };
    let endpoint = head.rsplit('/').next().unwrap_or_default();
    let is = |name: &str| endpoint.eq_ignore_ascii_case(name.trim_matches('/'));
    for kind in Kind::BOTH {
        // Some write the resource type instead of the endpoint.
        if is(kind.endpoint()) || is(kind.principal_type()) || is(&paths[kind as usize]) {
            return Stated::Kind(kind);
        }
    }
    let is_word = !endpoint.is_empty() && endpoint.chars().all(|c| c.is_ascii_alphabetic());
    let says_nothing = !is_word || OF_ALL_KINDS.iter().any(|name| is(name)) || head.ends_with(&format!("//{endpoint}"));
    if says_nothing { Stated::Nothing } else { Stated::Other }
}
