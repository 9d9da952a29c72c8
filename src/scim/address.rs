//! Which addresses a request may go to, checked at connect so that no name can point elsewhere later
//! (DNS rebinding): never link-local or metadata addresses, private ranges only if they are allowed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// What the configuration allows beyond public addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// Private ranges (RFC 1918, RFC 4193, shared address space).
    pub private: bool,
    /// Loopback: only if the base URL itself names it.
    pub loopback: bool,
}

impl Allowed {
    /// # Errors
    /// Says why a request must not go to `ip`.
    pub fn check(self, ip: IpAddr) -> Result<(), &'static str> {
        match Range::of(ip) {
            Range::Never => Err("a link-local, metadata or multicast address"),
            Range::Loopback if !self.loopback => Err("a loopback address"),
            Range::Private if !self.private => Err("a private address (allow_private = true permits it)"),
            Range::Loopback | Range::Private | Range::Public => Ok(()),
        }
    }
}

/// What an address leads to, the graver last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Range {
    Public,
    Private,
    Loopback,
    /// Services of the machine and its cloud, which give away credentials, and addresses of no server.
    Never,
}

/// Metadata services outside the link-local range.
const METADATA_V4: [Ipv4Addr; 2] = [
    // Alibaba Cloud, inside the shared address space.
    Ipv4Addr::new(100, 100, 100, 200),
    // Azure: the wireserver, a public address.
    Ipv4Addr::new(168, 63, 129, 16),
];

/// Metadata services inside the unique local range.
const METADATA_V6: [Ipv6Addr; 3] = [
    // Google Cloud.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // Oracle Cloud.
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    // Scaleway.
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

impl Range {
    fn of(ip: IpAddr) -> Range {
        match ip {
            IpAddr::V4(ip) => Range::of_v4(ip),
            IpAddr::V6(ip) => Range::of_v6(ip),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Range {
        // 169.254.0.0/16 has the metadata services of AWS, Google Cloud, Azure, Oracle and others (169.254.169.254), and
        // those of AWS ECS and EKS (169.254.170.2, 169.254.170.23).
        match ip.octets() {
            _ if ip.is_link_local() || ip.is_multicast() || METADATA_V4.contains(&ip) => Range::Never,
            // "This network" (RFC 791 §3.2) reaches the machine itself on Linux. 192.0.0.0/24 (RFC 6890) has Oracle's
            // 192.0.0.192. From 240.0.0.0 on, addresses are reserved.
            [0, ..] | [192, 0, 0, _] | [240..=255, ..] => Range::Never,
            _ if ip.is_loopback() => Range::Loopback,
            // Shared address space (RFC 6598), benchmarks (RFC 2544).
            [100, 64..128, ..] | [198, 18 | 19, ..] => Range::Private,
            _ if ip.is_private() => Range::Private,
            _ => Range::Public,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Range {
        let own = match ip.segments() {
            _ if ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified() => Range::Never,
            _ if METADATA_V6.contains(&ip) => Range::Never,
            // AWS: metadata (::254), the credentials of EKS pods (::23) and other services of the machine's network.
            [0xfd00, 0xec2, ..] => Range::Never,
            // Teredo (RFC 4380) leads through a server on the internet to an address behind a NAT.
            [0x2001, 0, ..] => Range::Never,
            _ if ip.is_loopback() => Range::Loopback,
            // Unique local (RFC 4193), site-local (RFC 3879), NAT64 of a local network (RFC 8215).
            [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => Range::Private,
            _ => Range::Public,
        };
        embedded(ip).into_iter().map(Range::of_v4).fold(own, Range::max)
    }
}

/// The IPv4 addresses that a translator or a tunnel may send packets for this address to.
fn embedded(ip: Ipv6Addr) -> Vec<Ipv4Addr> {
    let octets = ip.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    let last = at([12, 13, 14, 15]);
    match ip.segments() {
        // :: and ::1 are not IPv4-compatible addresses.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => vec![],
        // IPv4-compatible and IPv4-mapped (RFC 4291 §2.5.5), IPv4-translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![last],
        // Its prefix has any length from 48 bits on, and that decides where the address is (RFC 6052 §2.2). Three of the
        // four places hold something else, which only matters if it reads like the address of a metadata service.
        [0x64, 0xff9b, 1, ..] => [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]]
            .map(at)
            .into_iter()
            .filter(|ip| (1..224).contains(&ip.octets()[0]) && Range::of_v4(*ip) == Range::Never)
            .collect(),
        // 6to4 (RFC 3056).
        [0x2002, ..] => vec![at([2, 3, 4, 5])],
        // ISATAP (RFC 5214 §6.1).
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![last],
        _ => vec![],
    }
}

/// True if the URL itself names this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// A name of which no address may be connected to; holds the reason for the last one.
#[derive(Debug)]
pub struct NotAllowed(&'static str);

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host name leads to {}", self.0)
    }
}

impl std::error::Error for NotAllowed {}

/// Resolves names and drops every address that must not be connected to.
#[derive(Debug)]
pub struct CheckedResolver(pub Allowed);

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let mut refusal = "no address";
            let mut usable = Vec::new();
            for address in found {
                match allowed.check(address.ip()) {
                    Ok(()) => usable.push(address),
                    Err(reason) => refusal = reason,
                }
            }
            if usable.is_empty() {
                return Err(NotAllowed(refusal).into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(ip: &str, allowed: Allowed) -> bool {
        allowed.check(ip.parse().unwrap()).is_err()
    }

    #[test]
    fn metadata_and_link_local_addresses_are_always_refused() {
        let everything = Allowed { private: true, loopback: true };
        for ip in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.0.23",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "fe80::a9fe:a9fe",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "::ffff:100.100.100.200",
            "64:ff9b::169.254.169.254",
            "64:ff9b::168.63.129.16",
            // RFC 6052 §2.2: a prefix of 48, 56, 64 and 96 bits.
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:0:a9:fea9:fe00:0",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "2002:6464:64c8::",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:db8::5efe:169.254.169.254",
        ] {
            assert!(refused(ip, everything), "{ip}");
        }
    }

    #[test]
    fn private_and_loopback_addresses_need_permission() {
        for ip in [
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "100.64.0.1",
            "198.18.0.1",
            "fc00::1",
            "fec0::1",
            "fd00:ec3::254",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "2002:a00:1::1",
            "2001:db8::200:5efe:10.0.0.1",
        ] {
            assert!(refused(ip, Allowed::default()), "{ip}");
            assert!(!refused(ip, Allowed { private: true, loopback: false }), "{ip}");
        }
        for ip in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::"] {
            assert!(refused(ip, Allowed { private: true, loopback: false }), "{ip}");
            assert!(!refused(ip, Allowed { private: false, loopback: true }), "{ip}");
        }
    }

    #[tokio::test]
    async fn a_name_is_resolved_to_the_addresses_that_are_allowed_and_to_no_other() {
        let resolve = |allowed| CheckedResolver(allowed).resolve("localhost".parse().unwrap());
        let Err(error) = resolve(Allowed::default()).await else { panic!("localhost is a loopback address") };
        assert_eq!(error.to_string(), "the host name leads to a loopback address");
        assert!(error.is::<NotAllowed>());
        let Ok(addresses) = resolve(Allowed { private: false, loopback: true }).await else { panic!("it is allowed") };
        assert!(addresses.into_iter().all(|address| address.ip().is_loopback()));
    }

    #[test]
    fn public_addresses_need_no_permission() {
        for ip in [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "168.63.129.17",
            "192.0.1.1",
            "198.17.0.1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(!refused(ip, Allowed::default()), "{ip}");
        }
    }
}
