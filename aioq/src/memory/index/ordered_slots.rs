//! Slots ordered by number.

use std::collections::{BTreeMap, VecDeque};

use super::page::PageBuilder;

/// Index of a value in a slab.
pub(in crate::memory) type Slot = u32;

/// The key of a slab as a slot.
pub(in crate::memory) fn slot(key: usize) -> Slot {
    Slot::try_from(key).expect("memory holds fewer than 2^32 jobs")
}

/// Slots ordered by number: by place in line, or by revision.
///
/// Numbers mostly rise as they are added. Those are kept in a row, where adding costs no search and
/// a removal leaves a gap. Numbers that come late are kept in a tree.
#[derive(Default)]
pub(in crate::memory) struct OrderedSlots {
    row: VecDeque<(u64, Option<Slot>)>,
    /// Number of gaps in the row. Its first and its last entry are never gaps.
    gaps: usize,
    late: BTreeMap<u64, Slot>,
}

impl OrderedSlots {
    pub(in crate::memory) fn is_empty(&self) -> bool {
        self.row.is_empty() && self.late.is_empty()
    }

    pub(in crate::memory) fn len(&self) -> usize {
        self.row.len() - self.gaps + self.late.len()
    }

    /// Adds a slot under a number that is not in use.
    pub(in crate::memory) fn insert(&mut self, number: u64, slot: Slot) {
        match self.row.back() {
            Some((last, _)) if *last > number => _ = self.late.insert(number, slot),
            _ => self.row.push_back((number, Some(slot))),
        }
    }

    /// The slot with the lowest number.
    pub(in crate::memory) fn first(&self) -> Option<Slot> {
        let of_row = self.row.front().and_then(|(number, slot)| Some((*number, (*slot)?)));
        let late = self.late.first_key_value().map(|(number, slot)| (*number, *slot));
        of_row.into_iter().chain(late).min().map(|(_, slot)| slot)
    }

    /// Removes the slot with the lowest number.
    pub(in crate::memory) fn pop(&mut self) -> Option<Slot> {
        let late = self.late.first_entry();
        let first_late = late.as_ref().map_or(u64::MAX, |entry| *entry.key());
        match self.row.front() {
            Some((number, _)) if *number < first_late => {
                let (_, slot) = self.row.pop_front()?;
                self.trim();
                slot
            }
            _ => late.map(|entry| entry.remove()),
        }
    }

    /// Removes the slot of that number.
    pub(in crate::memory) fn remove(&mut self, number: u64) {
        if self.late.remove(&number).is_some() {
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

    /// Adds the slots of a page, each as `show` returns it.
    pub(in crate::memory) fn add_to_page<T>(&self, show: impl Fn(Slot) -> T, page: &mut PageBuilder<T>) {
        let numbers = page.positions();
        let index = |number| self.row.partition_point(|(other, _)| *other < number);
        let row = self.row.range(index(numbers.start)..index(numbers.end));
        page.add(row.filter_map(|(number, slot)| Some((*number, show((*slot)?)))));
        if !self.late.is_empty() {
            let late = self.late.range(page.positions());
            page.add(late.map(|(number, slot)| (*number, show(*slot))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Page;

    fn rest(mut series: OrderedSlots) -> Vec<Slot> {
        std::iter::from_fn(|| series.pop()).collect()
    }

    #[test]
    fn slots_come_by_number_however_they_were_added() {
        let mut series = OrderedSlots::default();
        for number in [5, 9, 3, 12, 4] {
            series.insert(number, number as Slot);
        }
        assert_eq!((series.len(), series.first()), (5, Some(3)));
        assert_eq!(rest(series), [3, 4, 5, 9, 12]);
    }

    #[test]
    fn what_was_taken_out_leaves_nothing_behind() {
        let mut series = OrderedSlots::default();
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
        let mut series = OrderedSlots::default();
        for number in [10, 20, 30, 15, 25] {
            series.insert(number, number as Slot);
        }
        series.remove(20);
        let mut page = PageBuilder::new(Page::oldest(10).after(10));
        series.add_to_page(|slot| slot, &mut page);
        assert_eq!(page.finish().collect::<Vec<_>>(), [(15, 15), (25, 25), (30, 30)]);
    }
}
