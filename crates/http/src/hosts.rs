//! The names under which this server answers. A web page of a foreign name that resolves to this machine (DNS
//! rebinding) gets nothing, because its browser asks with that name in `Host`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Host names beside IP addresses and `localhost`, which always count: an attacker's page has neither of them.
///
/// A name is compared without its port, without regard to case and without the dot at its end. `*.example.com` is every
/// name below `example.com`, and not `example.com` itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    names: BTreeSet<String>,
}

impl Hosts {
    /// Reads names that are separated by commas. `None` if one of them is no host name.
    #[must_use]
    pub fn parse(list: &str) -> Option<Hosts> {
        let names = list.split(',').map(|name| pattern(name.trim())).collect::<Option<_>>()?;
        Some(Hosts { names })
    }

    /// These names and one more. An address is no name and changes nothing.
    #[must_use]
    pub fn and(mut self, name: &str) -> Hosts {
        self.names.extend(pattern(name));
        self
    }

    /// Whether the server answers a request with this `Host`.
    pub(crate) fn allow(&self, host: &str) -> bool {
        let Some(name) = name_of(host) else { return false };
        is_address(&name) || name == "localhost" || self.has(&name)
    }

    fn has(&self, name: &str) -> bool {
        let parents = name.match_indices('.').map(|(dot, _)| format!("*{}", &name[dot..]));
        self.names.contains(name) || parents.into_iter().any(|parent| self.names.contains(&parent))
    }
}

/// Whether the name in a request is one of ours. Handlers that answer under any name tell no details to a foreign one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Ours,
    Foreign,
}

/// The list that [`Hosts::parse`] reads.
impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, name) in self.names.iter().enumerate() {
            write!(f, "{}{name}", if number == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A name as it is compared, with `*.` before it if it stands for all names below it.
fn pattern(text: &str) -> Option<String> {
    let (star, rest) = text.strip_prefix("*.").map_or(("", text), |rest| ("*.", rest));
    let name = comparable(rest)?;
    (!is_address(&name)).then(|| format!("{star}{name}"))
}

/// The name or the address in a `Host` header, without the port.
fn name_of(host: &str) -> Option<String> {
    if host.starts_with('[') {
        let end = host.find(']')?;
        let port = &host[end + 1..];
        return (port.is_empty() || is_port(port)).then(|| host[..=end].to_owned());
    }
    let name = match host.find(':') {
        Some(colon) if is_port(&host[colon..]) => &host[..colon],
        Some(_) => return None,
        None => host,
    };
    comparable(name)
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Letters are folded, and the dot at the end of an absolute name goes.
fn comparable(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let valid = name.split('.').all(|label| !label.is_empty() && label.bytes().all(known));
    valid.then(|| name.to_ascii_lowercase())
}

/// Whether a host is an address: IPv4, or IPv6 in brackets.
fn is_address(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_always_count_and_other_names_must_be_known() {
        let hosts = Hosts::parse("Floe.example., *.inside.example").unwrap().and("listening").and("10.0.0.1");
        for known in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "10.1.2.3:1",
            "[::1]",
            "[::1]:8080",
            "[fe80::1:2]:80",
            "localhost",
            "LOCALHOST:8080",
            "localhost.:80",
            "floe.example:8080",
            "FLOE.EXAMPLE.",
            "listening",
            "a.inside.example",
            "a.b.inside.example:1",
        ] {
            assert!(hosts.allow(known), "{known}");
        }
        for foreign in [
            "",
            ":",
            ":80",
            ".",
            "evil.example",
            "evil.floe.example",
            "inside.example",
            "xinside.example",
            "floe.example.evil",
            "localhost.evil",
            "127.0.0.1.evil",
            "[::1",
            "[::1]x",
            "[evil]",
            "[::1]:80.evil",
            "::1",
            "localhost:80:80",
            "user@localhost",
            "localhost@evil",
            "floe.example:8080.evil",
            "*.inside.example",
            "2130706433x",
            "floe.example/",
            "a b",
        ] {
            assert!(!hosts.allow(foreign), "{foreign}");
        }
        assert!(!Hosts::default().allow("floe.example"));
    }

    #[test]
    fn a_list_reads_back_as_what_it_prints() {
        let hosts = Hosts::parse("b.example, *.A.example").unwrap();
        assert_eq!(hosts.to_string(), "*.a.example,b.example");
        assert_eq!(Hosts::parse(&hosts.to_string()), Some(hosts));
        for wrong in ["", "a,,b", "*", "*.", "http://a", "a:80", "10.0.0.1", "a..b", "*.*.a", "a/b"] {
            assert_eq!(Hosts::parse(wrong), None, "{wrong}");
        }
    }
}
