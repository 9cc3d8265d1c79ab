// SPDX-License-Identifier: GPL-2.0

//! The two lines at the head of `/proc/drbd`.

use core::fmt;

/// The version whose behaviour and interfaces this driver has.
pub const VERSION: &str = "8.4.11";
/// The version of the netlink interface.
pub const API_VERSION: u32 = 1;
/// The oldest wire protocol.
pub const PROTOCOL_MIN: u32 = 86;
/// The newest wire protocol.
pub const PROTOCOL_MAX: u32 = 101;

/// The head of `/proc/drbd`: stock tools choose their generation by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionText<'a> {
    /// The module's source version; `None` where the driver is not a module.
    pub srcversion: Option<&'a str>,
}

impl fmt::Display for VersionText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "version: {VERSION} (api:{API_VERSION}/proto:{PROTOCOL_MIN}-{PROTOCOL_MAX})"
        )?;
        match self.srcversion {
            Some(srcversion) => writeln!(f, "srcversion: {srcversion:<24}"),
            None => writeln!(f, "built-in"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn the_head_is_that_of_the_c_driver() {
        let text = VersionText {
            srcversion: Some("B8171AFD2767BFC7E2C05FE"),
        }
        .to_string();
        assert_eq!(
            text,
            "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: B8171AFD2767BFC7E2C05FE \n"
        );
    }

    #[test]
    fn a_driver_that_is_no_module_says_so() {
        let text = VersionText { srcversion: None }.to_string();
        assert_eq!(text, "version: 8.4.11 (api:1/proto:86-101)\nbuilt-in\n");
    }
}
