//! Keys of the compacted topics (`schemas/README.md`).

use std::borrow::Cow;

use super::principal::{Id, Kind, Member};

/// What a record of a compacted topic is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKey {
    Principal(Kind, Id),
    Membership { member: Member, group: Id },
}

impl StateKey {
    /// `account/Users/<id>`, `account/Groups/<id>` or `account/Users/<uid>/Groups/<gid>`.
    pub fn text(&self, account: &str) -> String {
        match self {
            StateKey::Principal(kind, id) => principal_key(account, *kind, id),
            StateKey::Membership { member, group } => {
                let mut key = principal_key(account, member.kind, &member.id);
                key.push_str("/Groups/");
                push_part(&mut key, group);
                key
            }
        }
    }

    /// The inverse of [`StateKey::text`], whatever the account; `None` for keys of no known form.
    pub fn parse(text: &str) -> Option<StateKey> {
        Some(match KeyParts::parse(text)? {
            KeyParts { kind, id, group: None } => StateKey::Principal(kind, (*id).into()),
            KeyParts { kind, id, group: Some(group) } => {
                StateKey::Membership { member: Member { kind, id: (*id).into() }, group: (*group).into() }
            }
        })
    }
}

/// A [`StateKey`] that is only looked at: its parts are borrowed from the text, unless something of them is encoded.
#[derive(Debug)]
pub struct KeyParts<'a> {
    pub kind: Kind,
    pub id: Cow<'a, str>,
    /// Of a membership; `id` is that of the member.
    pub group: Option<Cow<'a, str>>,
}

impl KeyParts<'_> {
    /// As [`StateKey::parse`].
    pub fn parse(text: &str) -> Option<KeyParts<'_>> {
        let mut parts = text.split('/').skip(1);
        let endpoint = parts.next()?;
        let kind = Kind::BOTH.into_iter().find(|kind| kind.endpoint() == endpoint)?;
        let id = decode_part(parts.next()?)?;
        let group = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some("Groups"), Some(group), None) => Some(decode_part(group)?),
            _ => return None,
        };
        Some(KeyParts { kind, id, group })
    }
}

fn decode_part(part: &str) -> Option<Cow<'_, str>> {
    // As almost every id is.
    if !part.contains('%') {
        return (!part.is_empty()).then_some(Cow::Borrowed(part));
    }
    percent_encoding::percent_decode_str(part).decode_utf8().ok().filter(|text| !text.is_empty())
}

/// The key of a principal: that of its state record and of its events.
pub fn principal_key(account: &str, kind: Kind, id: &str) -> String {
    let mut key = String::with_capacity(account.len() + id.len() + 8);
    key.push_str(account);
    key.push('/');
    key.push_str(kind.endpoint());
    key.push('/');
    push_part(&mut key, id);
    key
}

/// Percent-encodes `%`, `/` and control characters; keys hold everything else unchanged.
fn push_part(key: &mut String, part: &str) {
    // As almost every id is.
    if part.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'%' && byte != b'/') {
        return key.push_str(part);
    }
    for character in part.chars() {
        if character == '%' || character == '/' || character.is_control() {
            let mut utf8 = [0; 4];
            for byte in character.encode_utf8(&mut utf8).bytes() {
                key.push_str(&format!("%{byte:02X}"));
            }
        } else {
            key.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_percent_slash_and_control_characters_are_encoded() {
        let key = StateKey::Principal(Kind::User, "a/b%c\nd é:@\u{85}".into());
        assert_eq!(key.text("acme"), "acme/Users/a%2Fb%25c%0Ad é:@%C2%85");
        assert_eq!(StateKey::parse(&key.text("acme")), Some(key));
    }

    #[test]
    fn a_nested_group_is_a_member_of_kind_group() {
        let member = Member { kind: Kind::Group, id: "child".into() };
        let key = StateKey::Membership { member, group: "parent".into() };
        assert_eq!(key.text("acme"), "acme/Groups/child/Groups/parent");
        assert_eq!(StateKey::parse(&key.text("acme")), Some(key));
        assert_eq!(StateKey::parse("acme/latest"), None);
    }
}
