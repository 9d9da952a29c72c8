//! Which groups are read, by their names. Okta's own search for names cannot be paged, so that scimtail chooses.

/// Patterns of one account.
const PATTERNS_MAX: usize = 100;

/// Names of groups, `*` standing for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNames(Vec<String>);

impl GroupNames {
    /// # Errors
    /// There are no patterns, too many, or an empty one.
    pub fn new(patterns: &[String]) -> Result<GroupNames, String> {
        if patterns.is_empty() || patterns.iter().any(String::is_empty) {
            return Err("groups has no name, or an empty one; → groups = [\"CB/*\"], or leave it out".to_owned());
        }
        if patterns.len() > PATTERNS_MAX {
            return Err(format!("groups has more than {PATTERNS_MAX} names; → use * for what they share"));
        }
        Ok(GroupNames(patterns.to_vec()))
    }

    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    // What is behind the last star ends the name.
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place leaves the most to the parts behind it.
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_everything_else_for_itself() {
        for (pattern, name, expected) in [
            ("CB/*", "CB/acme.com/ROLE/Admin", true),
            ("CB/*", "CB/", true),
            ("CB/*", "cb/acme.com/ROLE/Admin", false),
            ("CB/*", "XCB/", false),
            ("*", "", true),
            ("Everyone", "Everyone", true),
            ("Everyone", "Everyone else", false),
            ("CB/*/ROLE/*", "CB/acme.com/ROLE/Finance/AR Lead", true),
            ("CB/*/ROLE/*", "CB/acme.com/BE/Europe", false),
            ("*Admin", "Super Admin", true),
            ("a*a", "a", false),
            ("a*b*c", "a-c-b", false),
            ("a*b*c", "abc", true),
        ] {
            let names = GroupNames::new(&[pattern.to_owned()]).unwrap();
            assert_eq!(names.matches(name), expected, "{pattern} {name}");
        }
        assert!(GroupNames::new(&[]).is_err() && GroupNames::new(&[String::new()]).is_err());
    }
}
