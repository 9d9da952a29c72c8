//! Users and groups as JSON. Everything but what a churn changes follows from their number.

use std::fmt::Write as _;

use bytes::Bytes;

const USER_SPACE: u64 = 1;
const GROUP_SPACE: u64 = 2;

#[derive(Clone, Copy)]
pub struct Person {
    pub number: usize,
    pub revision: usize,
    pub active: bool,
}

pub struct Group {
    pub number: usize,
    /// Numbers of users.
    pub members: Vec<usize>,
}

impl Person {
    pub fn new(number: usize) -> Self {
        Self { number, revision: 0, active: true }
    }

    pub fn id(&self) -> uuid::Uuid {
        user_id(self.number)
    }

    fn given_name(&self) -> &'static str {
        at(&GIVEN_NAMES, self.number)
    }

    fn family_name(&self) -> &'static str {
        at(&FAMILY_NAMES, self.number / GIVEN_NAMES.len() + self.number)
    }

    fn mailbox(&self) -> String {
        format!("{}.{}{}", self.given_name().to_lowercase(), self.family_name().to_lowercase(), self.number)
    }

    pub fn user_name(&self) -> String {
        format!("{}@acme.example", self.mailbox())
    }

    /// Revisions change title and department in turn, one of them each time.
    pub fn title(&self) -> &'static str {
        at(&TITLES, self.number + self.revision.div_ceil(2))
    }

    pub fn department(&self) -> &'static str {
        at(&DEPARTMENTS, self.number + self.revision / 2)
    }

    /// About 1.75 kB of JSON.
    pub fn rendered(&self, base_url: &str) -> Bytes {
        let Self { number, revision, active } = *self;
        let (id, given, family, mailbox) = (self.id(), self.given_name(), self.family_name(), self.mailbox());
        let (title, department) = (self.title(), self.department());
        let (city, region, country, time_zone) = at(&CITIES, number);
        let manager = Self::new(number / 8);
        let manager_id = manager.id();
        let manager_name = format!("{} {}", manager.given_name(), manager.family_name());
        let (day, hour, minute) = (1 + number % 28, number % 24, number % 60);
        let (month, second) = (1 + number % 12, revision % 60);
        let middle = at(&GIVEN_NAMES, number / 3);
        let fax = (number + 5_000) % 10_000;
        let (phone, mobile, cost_centre) = (number % 10_000, number % 1_000, number % 500);
        let (house, postal_code) = (1 + number % 250, 10_000 + number % 90_000);
        // Written in parts only because one format string would be 2 kB long.
        let mut row = String::with_capacity(2048);
        let mut part = |text: std::fmt::Arguments<'_>| row.write_fmt(text).expect("a string takes any length");
        part(format_args!(
            r#"{{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User","urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"],"#
        ));
        part(format_args!(r#""id":"{id}","externalId":"00u{number:017}","userName":"{mailbox}@acme.example","#));
        part(format_args!(
            r#""name":{{"formatted":"{given} {family}","givenName":"{given}","middleName":"{middle}","familyName":"{family}"}},"#
        ));
        part(format_args!(r#""displayName":"{given} {family}","nickName":"{given}","#));
        part(format_args!(r#""profileUrl":"https://directory.acme.example/people/{id}","#));
        part(format_args!(
            r#""title":"{title}","userType":"Employee","preferredLanguage":"en-GB","locale":"en-GB","timezone":"{time_zone}","active":{active},"#
        ));
        part(format_args!(
            r#""emails":[{{"value":"{mailbox}@acme.example","type":"work","primary":true}},{{"value":"{mailbox}@home.example.com","type":"home","primary":false}}],"#
        ));
        part(format_args!(
            r#""phoneNumbers":[{{"value":"+44 20 7946 {phone:04}","type":"work"}},{{"value":"+44 7700 900{mobile:03}","type":"mobile"}},{{"value":"+44 20 7946 {fax:04}","type":"fax"}}],"#
        ));
        part(format_args!(
            r#""addresses":[{{"type":"work","primary":true,"streetAddress":"{house} Example Street","locality":"{city}","region":"{region}","postalCode":"{postal_code}","country":"{country}","#
        ));
        part(format_args!(r#""formatted":"{house} Example Street\n{city} {postal_code}\n{region}\n{country}"}}],"#));
        part(format_args!(
            r#""urn:ietf:params:scim:schemas:extension:enterprise:2.0:User":{{"employeeNumber":"{number:08}","costCenter":"CC-{cost_centre:04}","organization":"Acme Example","division":"Operations","department":"{department}","#
        ));
        part(format_args!(
            r#""manager":{{"value":"{manager_id}","$ref":"{base_url}/Users/{manager_id}","displayName":"{manager_name}"}}}},"#
        ));
        part(format_args!(
            r#""meta":{{"resourceType":"User","created":"2024-{month:02}-{day:02}T{hour:02}:{minute:02}:00.000Z","lastModified":"2026-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z","version":"W/\"{number:08x}-{revision}\"","location":"{base_url}/Users/{id}"}}}}"#
        ));
        Bytes::from(row)
    }
}

impl Group {
    pub fn id(&self) -> uuid::Uuid {
        id(GROUP_SPACE, self.number)
    }

    pub fn display_name(&self) -> String {
        format!("{} team {}", at(&DEPARTMENTS, self.number), self.number)
    }

    pub fn rendered(&self, base_url: &str) -> Bytes {
        let (group, name) = (self.id(), self.display_name());
        let mut row = format!(
            r#"{{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"id":"{group}","displayName":"{name}","members":["#
        );
        for (position, &member) in self.members.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            let member = Person::new(member);
            let (user, given, family) = (member.id(), member.given_name(), member.family_name());
            write!(
                row,
                r#"{comma}{{"value":"{user}","display":"{given} {family}","type":"User","$ref":"{base_url}/Users/{user}"}}"#
            )
            .expect("a string takes any length");
        }
        write!(
            row,
            r#"],"meta":{{"resourceType":"Group","created":"2024-01-15T09:00:00.000Z","lastModified":"2026-01-15T09:00:00.000Z","location":"{base_url}/Groups/{group}"}}}}"#
        )
        .expect("a string takes any length");
        Bytes::from(row)
    }
}

pub fn user_id(number: usize) -> uuid::Uuid {
    id(USER_SPACE, number)
}

/// An id that looks random and is not.
fn id(space: u64, number: usize) -> uuid::Uuid {
    let mut rng = fastrand::Rng::with_seed(space << 56 | number as u64);
    uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid()
}

fn at<T: Copy>(values: &[T], number: usize) -> T {
    values[number % values.len()]
}

const GIVEN_NAMES: [&str; 16] = [
    "Avery", "Blair", "Casey", "Dana", "Ellis", "Farah", "Gale", "Hanna", "Imre", "Jules", "Kiran", "Lior", "Mika",
    "Noor", "Oona", "Perry",
];
const FAMILY_NAMES: [&str; 16] = [
    "Alderwick",
    "Brackenfell",
    "Cindermoor",
    "Dapplegate",
    "Eskerdale",
    "Fernhollow",
    "Glassbrook",
    "Heatherlow",
    "Inkberry",
    "Juniperson",
    "Kestrelby",
    "Larkmere",
    "Mossgrove",
    "Nettlewood",
    "Oatfield",
    "Pebblestone",
];
const TITLES: [&str; 7] = [
    "Accountant",
    "Analyst",
    "Customer Success Manager",
    "Product Manager",
    "Sales Representative",
    "Software Engineer",
    "Support Engineer",
];
const DEPARTMENTS: [&str; 7] = ["Engineering", "Finance", "Human Resources", "Legal", "Marketing", "Sales", "Support"];
/// City, region, country code, time zone.
const CITIES: [(&str, &str, &str, &str); 5] = [
    ("London", "Greater London", "GB", "Europe/London"),
    ("Berlin", "Berlin", "DE", "Europe/Berlin"),
    ("Chennai", "Tamil Nadu", "IN", "Asia/Kolkata"),
    ("San Francisco", "California", "US", "America/Los_Angeles"),
    ("São Paulo", "São Paulo", "BR", "America/Sao_Paulo"),
];
