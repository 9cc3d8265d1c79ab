// SPDX-License-Identifier: GPL-2.0

//! `create-md`: new metadata, and every reason not to write them (Spec §2.6).

use super::area::{self, Area};
use super::signature::{self, Found};
use super::store::Store;
use super::Options;
use crate::failure::{Failure, Outcome};
use crate::generation::size_text;
use crate::terminal;
use drbd_engine::activity_log::Ring;
use drbd_engine::bitmap::{bits_for, page::pages_for};
use drbd_engine::meta::{Layout, Placement, Superblock};
use drbd_engine::types::Sector;
use std::str::FromStr;

/// How the bitmap's area is made zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitializeBitmap {
    /// By the device where it can, else by writing.
    #[default]
    Automatic,
    /// By the device or not at all.
    ZeroOut,
    /// By writing.
    Write,
    /// Left as it is.
    Skip,
}

impl FromStr for InitializeBitmap {
    type Err = Failure;

    fn from_str(mode: &str) -> Outcome<Self> {
        match mode {
            "automatic" => Ok(Self::Automatic),
            "zeroout" => Ok(Self::ZeroOut),
            "pwrite" => Ok(Self::Write),
            "skip" => Ok(Self::Skip),
            _ => Err(Failure::new(
                10,
                format!(
                    "invalid initialize-bitmap-mode \"{mode}\", \
                     should be one of automatic|zeroout|pwrite|skip"
                ),
            )),
        }
    }
}

/// Creates metadata on a device, after asking where that would overwrite something.
pub fn create(store: Store, placement: Placement, options: &Options) -> Outcome<Area> {
    let ring = options.ring()?;
    let layout = area::fresh_layout(&store, placement, ring)?;
    let store = match Area::load(store, placement) {
        Ok(existing) => {
            ask_to_overwrite(&existing, placement, options)?;
            existing.into_store()
        }
        Err((store, _)) => store,
    };
    check_content(&store, placement, &layout, options)?;
    let mut superblock = Superblock::fresh(&layout);
    superblock.peer_max_bio_bytes = options.peer_max_bio_bytes;
    let area = Area::fresh(store, placement, layout, superblock);
    println!("initializing activity log");
    area.initialize_log()?;
    initialize_bitmap(&area, options.initialize_bitmap)?;
    println!("Writing meta data...");
    area.save()?;
    println!("New drbd meta data block successfully created.");
    Ok(area)
}

fn ask_to_overwrite(existing: &Area, placement: Placement, options: &Options) -> Outcome {
    let question = if placement.is_internal() {
        let offset = existing.layout().superblock().bytes().unwrap_or(0);
        eprintln!(
            "You want me to create a v08 style flexible-size internal meta data block.\n\
             There appears to be a v08 flexible-size internal meta data block\n\
             already in place on {} at byte offset {offset}",
            existing.store().path()
        );
        "Do you really want to overwrite the existing meta-data?"
    } else {
        "Valid meta data seems to be in place.\nDo you really want to overwrite?"
    };
    proceed(question, options)
}

fn proceed(question: &str, options: &Options) -> Outcome {
    if terminal::confirm(question, options.force) {
        Ok(())
    } else {
        Err(Failure::new(1, "Operation cancelled."))
    }
}

/// Refuses to destroy what is known to be somebody's data, and asks about what may be.
fn check_content(
    store: &Store,
    placement: Placement,
    layout: &Layout,
    options: &Options,
) -> Outcome {
    let Some(found) = signature::find(store)? else {
        return Ok(());
    };
    let offset = |sector: Sector| sector.bytes().unwrap_or(0);
    println!(
        "md_offset {}\nal_offset {}\nbm_offset {}\n\nFound {}",
        offset(layout.superblock()),
        offset(layout.activity_log()),
        offset(layout.bitmap()),
        found.name
    );
    if !found.known {
        println!("\n ==> This might destroy existing data! <==");
        return proceed("Do you want to proceed?", options);
    }
    if options.ignore_sanity_checks {
        println!("Ignoring sanity check on user request.");
        return Ok(());
    }
    let usable = layout.usable().0 / 2;
    match refusal(&found, placement, usable) {
        Some(text) => {
            println!("{text}Operation refused.\n");
            Err(Failure::new(40, ""))
        }
        None => {
            println!(
                "\nEven though it looks like this would place the new meta data into\n\
                 unused space, you still need to confirm, as this is only a guess."
            );
            proceed("Do you want to proceed?", options)
        }
    }
}

const DESTROY: &str = "If you want me to do this, you need to zero out the first part\n\
                       of the device (destroy the content).\n\
                       You should be very sure that you mean it.\n";
const TRUNCATED: &str = "Device size would be truncated, which\n\
                         would corrupt data and result in\n\
                         'access beyond end of device' errors.\n";

/// Why the metadata must not be written over what was found, with `usable` KiB left to it.
fn refusal(found: &Found, placement: Placement, usable: u64) -> Option<String> {
    if !placement.is_internal() {
        return Some(format!("\nThis would corrupt existing data.\n{DESTROY}"));
    }
    let left = format!("{usable:12} kB left usable by current configuration\n");
    let Some(used_bytes) = found.used_bytes else {
        println!("{left}Could not determine the size of the actually used data area.\n");
        return Some(format!("{TRUNCATED}{DESTROY}"));
    };
    let used = used_bytes.div_ceil(1024);
    println!("{used:12} kB data area apparently used\n{left}");
    (used > usable).then(|| {
        format!(
            "{TRUNCATED}You need to either\n   \
             * use external meta data (recommended)\n   \
             * shrink that filesystem first\n   \
             * zero out the device (destroy the filesystem)\n"
        )
    })
}

fn initialize_bitmap(area: &Area, mode: InitializeBitmap) -> Outcome {
    if mode == InitializeBitmap::Skip {
        eprintln!("SKIPPED initializing bitmap area");
        return Ok(());
    }
    // The driver writes the whole bitmap when it first learns the volume's size.
    let pages = pages_for(bits_for(Sector(area.store().sectors())));
    let sectors = pages.saturating_mul(8).min(area.layout().bitmap_sectors());
    let text = size_text(sectors / 2);
    if mode != InitializeBitmap::Write {
        eprintln!("initializing bitmap ({text}) to all zero");
        match area.store().zero_range(area.layout().bitmap(), sectors) {
            Ok(()) => return Ok(()),
            Err(error) if mode == InitializeBitmap::ZeroOut => {
                let text = format!("fast zero-out failed, fallback disabled: {error}");
                return Err(Failure::new(10, text));
            }
            Err(_) => {}
        }
    }
    eprintln!("initializing bitmap ({text}) to all zero using pwrite");
    area.zero_bitmap(sectors)
}

impl Options {
    /// The shape of the activity log that was asked for.
    fn ring(&self) -> Outcome<Ring> {
        let size = u64::from(self.al_stripes).saturating_mul(u64::from(self.al_stripe_kib));
        let blocks = self.al_stripe_kib / 4;
        Ring::new(self.al_stripes, blocks).map_err(|_| {
            let how = if size < 32 { "small" } else { "large" };
            Failure::new(10, format!("invalid (too {how}) al-stripe* settings"))
        })
    }
}
