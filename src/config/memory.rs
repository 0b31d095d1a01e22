//! How much memory records may take when nobody says it: a share of what the control group allows.
//!
//! It reads control group files only; [`limit`] is for `main`, which hands the answer to the configuration.

use std::{
    fs,
    path::{Component, Path},
};

const MIB: u64 = 1024 * 1024;
const DEFAULT: u64 = 24 * MIB;
const FLOOR: u64 = 8 * MIB;

/// The budget for a limit of so many bytes: 24 MiB, or half of the limit if that is less, but not below 8 MiB.
pub(super) fn budget(limit: Option<u64>) -> usize {
    let bytes = limit.map_or(DEFAULT, |limit| (limit / 2).clamp(FLOOR, DEFAULT));
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The memory limit of this process' control group in bytes (version 2, else version 1); None without one.
pub(crate) fn limit() -> Option<u64> {
    limit_below(Path::new("/"))
}

fn limit_below(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (base, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // In a container the path may be one of the host that is not mounted here: the root of the mount is what counts then.
        let base = root.join(base);
        let mut group = base.clone();
        let below = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
        let mut look = |directory: &Path| {
            let found = fs::read_to_string(directory.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok());
            least = [least, found].into_iter().flatten().min();
        };
        look(&group);
        for part in below {
            group.push(part);
            look(&group);
        }
    }
    // Version 1 says "no limit" with a number near 2^63.
    least.filter(|bytes| *bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_small_limit_is_the_budget() {
        for (limit, expected) in
            [(None, 24), (Some(1024), 24), (Some(48), 24), (Some(32), 16), (Some(16), 8), (Some(10), 8), (Some(0), 8)]
        {
            assert_eq!(budget(limit.map(|mib| mib * MIB)), (expected * MIB) as usize, "{limit:?}");
        }
    }

    #[test]
    fn the_least_limit_of_all_groups_above_counts() {
        let v2 = "sys/fs/cgroup";
        let v1 = "sys/fs/cgroup/memory";
        let (max, old) = ("memory.max", "memory.limit_in_bytes");
        for (cgroup, files, expected) in [
            ("0::/\n", vec![(v2.to_owned(), max, "50331648\n")], Some(50_331_648)),
            ("0::/\n", vec![(v2.to_owned(), max, "max\n")], None),
            ("0::/a/b\n", vec![(format!("{v2}/a"), max, "1000\n"), (format!("{v2}/a/b"), max, "max\n")], Some(1000)),
            ("0::/a/b\n", vec![(format!("{v2}/a"), max, "3000"), (format!("{v2}/a/b"), max, "2000")], Some(2000)),
            ("5:cpu:/x\n4:memory:/docker/1\n", vec![(v1.to_owned(), old, "7000")], Some(7000)),
            ("4:memory:/\n", vec![(v1.to_owned(), old, "9223372036854771712")], None),
            ("0::/../..\n", vec![], None),
            ("nonsense", vec![], None),
            ("", vec![], None),
        ] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("proc/self")).unwrap();
            fs::write(root.path().join("proc/self/cgroup"), cgroup).unwrap();
            for (directory, file, text) in files {
                fs::create_dir_all(root.path().join(&directory)).unwrap();
                fs::write(root.path().join(directory).join(file), text).unwrap();
            }
            assert_eq!(limit_below(root.path()), expected, "{cgroup}");
        }
    }
}
