//! Entitlements that a directory carries in its group names, e.g. Chargebee's `CB/<domain>/ROLE/<role_name>`.

/// What a group's name grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entitlement {
    pub domain: String,
    pub kind: String,
    pub name: String,
}

/// How a group's name is read, written as `CB/{domain}/{kind:ROLE=role|BE=business_entity}/{name}`:
/// parts between slashes are literal, or `{domain}`, `{kind:WORD=kind|…}`, `{name}`. The name is cut at the
/// first slashes only, so the last part may hold slashes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Domain,
    Kind(Vec<(String, String)>),
    Name,
}

impl GroupPattern {
    /// # Errors
    /// Says which part of the pattern is not understood.
    pub fn parse(text: &str) -> Result<GroupPattern, String> {
        let parts = text.split('/').map(Part::parse).collect::<Result<Vec<_>, _>>()?;
        if !parts.contains(&Part::Name) {
            return Err(format!("group pattern `{text}` has no {{name}}"));
        }
        Ok(GroupPattern { text: text.to_owned(), parts })
    }

    /// As written in the profile or configuration.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The entitlement in `group_name`; `None` where the name does not fit or a part is empty.
    pub fn decode(&self, group_name: &str) -> Option<Entitlement> {
        let mut entitlement = Entitlement::default();
        let mut values = group_name.splitn(self.parts.len(), '/');
        for part in &self.parts {
            let value = values.next().filter(|value| !value.is_empty())?;
            match part {
                Part::Literal(literal) if literal == value => {}
                Part::Literal(_) => return None,
                Part::Domain => entitlement.domain = value.to_owned(),
                Part::Name => entitlement.name = value.to_owned(),
                Part::Kind(words) => {
                    let (_, kind) = words.iter().find(|(word, _)| word == value)?;
                    entitlement.kind.clone_from(kind);
                }
            }
        }
        Some(entitlement)
    }
}

impl Part {
    fn parse(text: &str) -> Result<Part, String> {
        let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
            return Ok(Part::Literal(text.to_owned()));
        };
        match inner.split_once(':') {
            None if inner == "domain" => Ok(Part::Domain),
            None if inner == "name" => Ok(Part::Name),
            Some(("kind", words)) => words
                .split('|')
                .map(|pair| pair.split_once('=').map(|(word, kind)| (word.to_owned(), kind.to_owned())))
                .collect::<Option<Vec<_>>>()
                .map(Part::Kind)
                .ok_or_else(|| format!("group pattern part `{text}` is not {{kind:WORD=kind|…}}")),
            _ => Err(format!("group pattern part `{text}` is none of {{domain}}, {{kind:…}}, {{name}}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(name: &str) -> Option<(String, String, String)> {
        let pattern = GroupPattern::parse("CB/{domain}/{kind:ROLE=role|BE=business_entity}/{name}").unwrap();
        pattern.decode(name).map(|found| (found.domain, found.kind, found.name))
    }

    fn entitlement(domain: &str, kind: &str, name: &str) -> Option<(String, String, String)> {
        Some((domain.into(), kind.into(), name.into()))
    }

    #[test]
    fn a_chargebee_role_and_business_entity_are_decoded() {
        assert_eq!(decode("CB/acme.com/ROLE/Admin"), entitlement("acme.com", "role", "Admin"));
        assert_eq!(decode("CB/acme.com/BE/Europe/West"), entitlement("acme.com", "business_entity", "Europe/West"));
    }

    #[test]
    fn other_names_and_empty_parts_are_no_entitlement() {
        for name in
            ["Engineering", "CB/acme.com/ROLE/", "CB//ROLE/Admin", "CB/acme.com/TEAM/x", "cb/acme.com/ROLE/x", ""]
        {
            assert_eq!(decode(name), None, "{name}");
        }
    }

    #[test]
    fn a_pattern_that_names_nothing_is_refused() {
        assert!(GroupPattern::parse("CB/{domain}").is_err());
        assert!(GroupPattern::parse("CB/{what}/{name}").is_err());
    }
}
