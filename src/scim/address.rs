//! Which addresses a request may go to, checked at connect so that no name can point elsewhere later
//! (DNS rebinding): never link-local or metadata addresses, private ranges only if they are allowed.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

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
        let ip = ip.to_canonical();
        let (link_local, private) = match ip {
            IpAddr::V4(v4) => {
                let [a, b, ..] = v4.octets();
                let shared = a == 100 && (64..128).contains(&b);
                (v4.is_link_local(), v4.is_private() || shared)
            }
            IpAddr::V6(v6) => (v6.is_unicast_link_local() || is_metadata(v6), v6.is_unique_local()),
        };
        if link_local || ip.is_unspecified() || ip.is_multicast() {
            Err("a link-local, metadata or multicast address")
        } else if ip.is_loopback() && !self.loopback {
            Err("a loopback address")
        } else if private && !self.private {
            Err("a private address (allow_private = true permits it)")
        } else {
            Ok(())
        }
    }
}

/// The IPv6 address of EC2's instance metadata service.
fn is_metadata(ip: Ipv6Addr) -> bool {
    ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
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
        write!(f, "the name leads to {}", self.0)
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
        for ip in ["169.254.169.254", "fe80::1", "fd00:ec2::254", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"] {
            assert!(refused(ip, everything), "{ip}");
        }
    }

    #[test]
    fn private_and_loopback_addresses_need_permission() {
        for ip in ["10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1", "fc00::1", "::ffff:10.0.0.1"] {
            assert!(refused(ip, Allowed::default()), "{ip}");
            assert!(!refused(ip, Allowed { private: true, loopback: false }), "{ip}");
        }
        assert!(refused("127.0.0.1", Allowed { private: true, loopback: false }));
        assert!(!refused("8.8.8.8", Allowed::default()));
    }
}
