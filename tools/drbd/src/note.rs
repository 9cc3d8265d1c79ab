// SPDX-License-Identifier: GPL-2.0

//! Notes about where a minor's internal metadata were last seen.
//!
//! Internal metadata lie at the end of their device. When the device was resized while it was not
//! in use, they are not at its end any more; the note says where the end was. The files are those
//! of drbd-utils: `size<TAB>path`, and if the device has a UUID, `uuid:<TAB>uuid`.

use std::fs::{self, File};
use std::io::{self, Write};

const DIRECTORY: &str = "/var/lib/drbd";

/// What was noted about the backing device of a minor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Its size in bytes.
    pub size: u64,
    /// Its path.
    pub path: String,
    /// The device UUID in its metadata, or 0.
    pub uuid: u64,
}

impl Note {
    /// The note about a minor, if there is one.
    pub fn read(minor: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(file_name(minor)).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (size, path) = lines.next()?.split_once('\t')?;
        let uuid = lines.find_map(|line| line.strip_prefix("uuid:"));
        Some(Self {
            size: size.trim().parse().ok()?,
            path: path.to_owned(),
            uuid: uuid.map_or(Some(0), |uuid| u64::from_str_radix(uuid.trim(), 16).ok())?,
        })
    }

    fn text(&self) -> String {
        let mut text = format!("{}\t{}\n", self.size, self.path);
        if self.uuid != 0 {
            text.push_str(&format!("uuid:\t{:016X}\n", self.uuid));
        }
        text
    }

    /// Keeps the note. One that cannot be kept is told, but no failure.
    pub fn write(&self, minor: u32) {
        if let Err(error) = self.replace(&file_name(minor)) {
            eprintln!("{}: {error}", file_name(minor));
        }
    }

    /// Whatever happens meanwhile, there is the old note or the new one.
    fn replace(&self, path: &str) -> io::Result<()> {
        fs::create_dir_all(DIRECTORY)?;
        let fresh = format!("{path}.new");
        let mut file = File::create(&fresh)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(DIRECTORY)?.sync_all()
    }

    /// Drops the note about a minor, if there is one.
    pub fn remove(minor: u32) {
        let _ = fs::remove_file(file_name(minor));
    }
}

fn file_name(minor: u32) -> String {
    format!("{DIRECTORY}/drbd-minor-{minor}.lkbd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        for uuid in [0, 0x77] {
            let note = Note {
                size: 67_108_864,
                path: "/dev/loop6".to_owned(),
                uuid,
            };
            assert_eq!(Note::parse(&note.text()), Some(note));
        }
        let stock = "67108864\t/dev/loop6\nuuid:\t0000000000000077\n";
        assert_eq!(Note::parse(stock).unwrap().uuid, 0x77);
    }

    #[test]
    fn a_damaged_note_is_none() {
        for text in ["", "x\t/dev/a", "12 /dev/a", "12\t/dev/a\nuuid:\tzz"] {
            assert_eq!(Note::parse(text), None, "{text}");
        }
    }
}
