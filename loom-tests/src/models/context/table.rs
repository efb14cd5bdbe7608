//! Contexts by number.

use super::{nop, rest};
use crate::harness::{Model, nothing};
use ioctx::aio::{Context, Handle, Table};
use ioctx::backend::Null;
use ioctx::sync::model::set_cpu;
use ioctx::sync::{Arc, thread};

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "aio.table_get_remove",
            checks: "a look-up against the removal: the context is used whole, or not found; it is taken out after its users",
            bound: Some(3),
            least: 1151,
            body: || {
                let table = Arc::new(Table::new(1).unwrap());
                let handle = table.insert(Context::new(1, Null).unwrap()).unwrap();
                let theirs = Arc::clone(&table);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.get(handle).is_some_and(|context| context.submit(nop(7)).is_ok())
                });
                let context = table.remove(handle).unwrap();
                let submitted = thread.join().unwrap();
                assert_eq!(rest(&context), if submitted { vec![7] } else { vec![] });
                assert!(table.get(handle).is_none());
            },
            after: nothing,
        },
        Model {
            name: "aio.table_insert_guess",
            checks: "a look-up and a removal by a guessed handle against the insertion: nothing is found half made",
            bound: Some(3),
            least: 1643,
            body: || {
                let table = Arc::new(Table::new(1).unwrap());
                let guess = Handle::from_raw(1 << 32);
                let [user, remover] = [Arc::clone(&table), Arc::clone(&table)];
                let user =
                    thread::spawn(move || user.get(guess).is_some_and(|context| context.capacity() == 1));
                let remover = thread::spawn(move || remover.remove(guess).is_some());
                assert_eq!(table.insert(Context::new(1, Null).unwrap()).unwrap(), guess);
                user.join().unwrap();
                let removed = remover.join().unwrap();
                assert_eq!(table.get(guess).is_none(), removed);
            },
            after: nothing,
        },
        Model {
            name: "aio.table_remove_remove",
            checks: "two removers: one gets the context; the place is used again under another name",
            bound: Some(3),
            least: 72,
            body: || {
                let table = Arc::new(Table::new(1).unwrap());
                let handle = table.insert(Context::new(1, Null).unwrap()).unwrap();
                let theirs = Arc::clone(&table);
                let thread = thread::spawn(move || theirs.remove(handle).is_some());
                let mine = table.remove(handle).is_some();
                assert!(thread.join().unwrap() != mine, "one remover");
                let next = table.insert(Context::new(1, Null).unwrap()).unwrap();
                assert_ne!(next, handle);
                assert!(table.get(handle).is_none() && table.get(next).is_some());
            },
            after: nothing,
        },
    ]
}
