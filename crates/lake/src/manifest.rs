//! Manifests: which are merged, and how they are read.
//!
//! Every commit adds one manifest. [`plan`] keeps their number logarithmic: as soon as there are eight of about the
//! same size, they become one. So the entry of a file is rewritten about once for each power of eight in the number of
//! the table's files.

use floe_iceberg::{Error, ManifestEntry, ManifestFile, read_manifest};

use crate::limits::{MANIFEST_ENTRIES_MAX, MANIFEST_MERGE};

/// Which manifests are merged, given their numbers of entries: groups of indices.
pub(crate) fn plan(entries: &[u64]) -> Vec<Vec<usize>> {
    let base = MANIFEST_MERGE as u64;
    let level = |entries: u64| entries.max(1).ilog(base);
    let mut groups: Vec<(u64, Vec<usize>)> =
        entries.iter().enumerate().map(|(at, n)| (*n, vec![at])).collect();
    let mut current = 0;
    while current <= level(MANIFEST_ENTRIES_MAX) {
        let fits = |(n, _): &(u64, Vec<usize>)| level(*n) == current && *n < MANIFEST_ENTRIES_MAX;
        if groups.iter().filter(|group| fits(group)).count() >= MANIFEST_MERGE {
            let (merged, rest): (Vec<_>, Vec<_>) = groups.into_iter().partition(fits);
            groups = rest;
            let total = merged.iter().map(|(n, _)| n).sum();
            groups.push((total, merged.into_iter().flat_map(|(_, at)| at).collect()));
        }
        current += 1;
    }
    groups.into_iter().map(|(_, group)| group).filter(|group| group.len() > 1).collect()
}

/// Files that are live in a manifest.
pub(crate) fn live(manifest: &ManifestFile) -> u64 {
    u64::from(manifest.added_files_count) + u64::from(manifest.existing_files_count)
}

/// The entries of a manifest, with the values that they inherit from `file`.
pub(crate) fn parse(bytes: &[u8], file: &ManifestFile) -> Result<Vec<ManifestEntry>, Error> {
    let mut entries = read_manifest(bytes)?;
    entries.iter_mut().for_each(|entry| entry.inherit(file));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_manifests_stays_logarithmic() {
        let (mut manifests, mut written) = (Vec::<u64>::new(), 0);
        for commits in 1..=20_000_u64 {
            let groups = plan(&manifests);
            let gone: Vec<usize> = groups.iter().flatten().copied().collect();
            let merged = groups.iter().map(|group| group.iter().map(|at| manifests[*at]).sum::<u64>());
            let merged: Vec<u64> = merged.collect();
            written += merged.iter().sum::<u64>();
            manifests =
                (0..manifests.len()).filter(|at| !gone.contains(at)).map(|at| manifests[at]).collect();
            manifests.extend(merged);
            manifests.push(1);
            assert_eq!(manifests.iter().sum::<u64>(), commits, "no file is lost");
            assert!(manifests.len() <= 8 * 5 + 5, "{manifests:?}");
        }
        assert!(written <= 20_000 * 5, "an entry is written again once for each power of eight: {written}");
    }
}
