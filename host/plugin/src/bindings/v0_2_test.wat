;; A plugin of the version that only tests know: each message becomes its sequence, and an empty one is refused.
(module
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 4096))
  (data (i32.const 8) "second1.0.0TWOtwonnothing in it")
  ;; name, version, stream-name, table, column: where each is in the line above, and how long.
  (data (i32.const 64)
    "\08\00\00\00\06\00\00\00"
    "\0e\00\00\00\05\00\00\00"
    "\13\00\00\00\03\00\00\00"
    "\16\00\00\00\03\00\00\00"
    "\19\00\00\00\01\00\00\00")

  (func $alloc (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (call $alloc (local.get 2) (local.get 3)))

  (func (export "lantern:projection/projector@0.2.0-test#describe") (result i32)
    (i32.const 64))

  (func (export "lantern:projection/projector@0.2.0-test#project") (param $messages i32) (param $count i32) (result i32)
    (local $answer i32) (local $at i32) (local $end i32)
    ;; A message and an answer have the same size, 16 bytes.
    (local.set $at (call $alloc (i32.const 8) (i32.shl (local.get $count) (i32.const 4))))
    (local.set $answer (call $alloc (i32.const 8) (i32.const 8)))
    (i32.store (local.get $answer) (local.get $at))
    (i32.store offset=4 (local.get $answer) (local.get $count))
    (local.set $end (i32.add (local.get $at) (i32.shl (local.get $count) (i32.const 4))))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $at) (local.get $end)))
        (if (i32.load offset=12 (local.get $messages))
          (then
            (i32.store8 (local.get $at) (i32.const 0))
            (i64.store offset=8 (local.get $at) (i64.load (local.get $messages))))
          (else
            (i32.store8 (local.get $at) (i32.const 1))
            (i32.store offset=8 (local.get $at) (i32.const 26))
            (i32.store offset=12 (local.get $at) (i32.const 13))))
        (local.set $at (i32.add (local.get $at) (i32.const 16)))
        (local.set $messages (i32.add (local.get $messages) (i32.const 16)))
        (br $next)))
    (local.get $answer)))
