//! Numbered slots, in the order of their numbers.

use std::collections::{BTreeMap, VecDeque};

use super::page::Gathering;

/// Where something is kept.
pub(super) type Slot = u32;

/// A key of a slab as a slot.
pub(super) fn slot(key: usize) -> Slot {
    Slot::try_from(key).expect("memory holds fewer than 2^32 jobs")
}

/// Slots by number: by place in line, or by revision.
///
/// Numbers mostly rise as they are added, and those cost no search: they are in a row, with gaps where one was taken
/// out. The others are kept aside.
#[derive(Default)]
pub(super) struct Series {
    row: VecDeque<(u64, Option<Slot>)>,
    /// In the row; neither its first nor its last entry is one.
    gaps: usize,
    aside: BTreeMap<u64, Slot>,
}

impl Series {
    pub(super) fn is_empty(&self) -> bool {
        self.row.is_empty() && self.aside.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.row.len() - self.gaps + self.aside.len()
    }

    /// Adds a slot under a number that is not in use.
    pub(super) fn insert(&mut self, number: u64, slot: Slot) {
        match self.row.back() {
            Some((last, _)) if *last > number => _ = self.aside.insert(number, slot),
            _ => self.row.push_back((number, Some(slot))),
        }
    }

    /// The slot with the lowest number.
    pub(super) fn first(&self) -> Option<Slot> {
        let of_row = self.row.front().and_then(|(number, slot)| Some((*number, (*slot)?)));
        let aside = self.aside.first_key_value().map(|(number, slot)| (*number, *slot));
        of_row.into_iter().chain(aside).min().map(|(_, slot)| slot)
    }

    /// Takes out the slot with the lowest number.
    pub(super) fn pop(&mut self) -> Option<Slot> {
        let aside = self.aside.first_entry();
        let first_aside = aside.as_ref().map_or(u64::MAX, |entry| *entry.key());
        match self.row.front() {
            Some((number, _)) if *number < first_aside => {
                let (_, slot) = self.row.pop_front()?;
                self.trim();
                slot
            }
            _ => aside.map(|entry| entry.remove()),
        }
    }

    /// Takes out the slot of that number.
    pub(super) fn remove(&mut self, number: u64) {
        if self.aside.remove(&number).is_some() {
            return;
        }
        let Ok(index) = self.row.binary_search_by_key(&number, |(number, _)| *number) else { return };
        self.gaps += usize::from(self.row[index].1.take().is_some());
        self.trim();
        if self.gaps > self.row.len() / 2 {
            self.row.retain(|(_, slot)| slot.is_some());
            self.gaps = 0;
        }
    }

    fn trim(&mut self) {
        while let Some((_, None)) = self.row.front() {
            self.row.pop_front();
            self.gaps -= 1;
        }
        while let Some((_, None)) = self.row.back() {
            self.row.pop_back();
            self.gaps -= 1;
        }
    }

    /// Gathers what a page may need, as `show` has it.
    pub(super) fn gather<T>(&self, show: impl Fn(Slot) -> T, page: &mut Gathering<T>) {
        let numbers = page.positions();
        let index = |number| self.row.partition_point(|(other, _)| *other < number);
        let row = self.row.range(index(numbers.start)..index(numbers.end));
        page.add(row.filter_map(|(number, slot)| Some((*number, show((*slot)?)))));
        if !self.aside.is_empty() {
            let aside = self.aside.range(page.positions());
            page.add(aside.map(|(number, slot)| (*number, show(*slot))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Page;

    fn rest(mut series: Series) -> Vec<Slot> {
        std::iter::from_fn(|| series.pop()).collect()
    }

    #[test]
    fn slots_come_by_number_however_they_were_added() {
        let mut series = Series::default();
        for number in [5, 9, 3, 12, 4] {
            series.insert(number, number as Slot);
        }
        assert_eq!((series.len(), series.first()), (5, Some(3)));
        assert_eq!(rest(series), [3, 4, 5, 9, 12]);
    }

    #[test]
    fn what_was_taken_out_leaves_nothing_behind() {
        let mut series = Series::default();
        for number in 0..1000 {
            series.insert(number, number as Slot);
        }
        series.remove(1);
        series.remove(1);
        (2..999).for_each(|number| series.remove(number));
        assert!(series.row.len() < 10, "{} gaps", series.gaps);
        assert_eq!((series.len(), series.first()), (2, Some(0)));
        assert_eq!(rest(series), [0, 999]);
    }

    #[test]
    fn a_page_shows_both_what_is_in_the_row_and_what_is_aside() {
        let mut series = Series::default();
        for number in [10, 20, 30, 15, 25] {
            series.insert(number, number as Slot);
        }
        series.remove(20);
        let mut page = Gathering::new(Page::oldest(10).after(10));
        series.gather(|slot| slot, &mut page);
        assert_eq!(page.finish().collect::<Vec<_>>(), [(15, 15), (25, 25), (30, 30)]);
    }
}
