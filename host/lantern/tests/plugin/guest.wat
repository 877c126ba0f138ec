;; A handwritten plugin for cases that no compiler generates: invalid pointers, text that is not UTF-8, results of the
;; wrong length. The first byte of a payload selects the behaviour; the rest is text.
;; (; START ;), (; DESCRIBE ;) and (; DATA ;) are filled in by guest.rs, and the WASI parts come from wasi.wat.
(module
  (import "lantern:projection/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (; IMPORTS ;)
  (memory (export "memory") 2)
  (data (i32.const 1024) "(; DATA ;)")
  ;; 16: {"  20: ff fe
  (data (i32.const 16) "{")
  (data (i32.const 20) "\ff\fe")
  (data (i32.const 24) "none")
  (global $heap (mut i32) (i32.const 65536))
  (global $poisoned (mut i32) (i32.const 0))
  (global $calls (mut i32) (i32.const 0))
  (global $surplus (mut i32) (i32.const 0))
  (; START ;)

  (func $alloc (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                            (i32.sub (i32.const 0) (local.get $align))))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (block $enough
      (loop $more
        (br_if $enough (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $more)))
    (local.get $at))

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (call $alloc (local.get 2) (local.get 3)))

  (func (export "lantern:projection/projector@0.1.0#describe") (result i32)
    (; DESCRIBE ;)
    (i32.const 1024))

  (func (export "cabi_post_lantern:projection/projector@0.1.0#project") (param i32)
    (global.set $heap (i32.const 65536)))

  (func $recurse (param i32) (result i32)
    (i32.add (local.get 0) (call $recurse (i32.add (local.get 0) (i32.const 1)))))

  (func $busy
    (local $left i32)
    (local.set $left (i32.const 30000000))
    (loop $more
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $more (local.get $left))))

  (func $flood (param $text i32) (param $length i32)
    (local $left i32)
    (local.set $left (i32.const 1000000))
    (loop $more
      (call $log (i32.const 2) (local.get $text) (local.get $length))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $more (local.get $left))))

  (func $eat
    (loop $more
      (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))
      (br $more)))

  (func $fill
    (drop (memory.grow (i32.const 600)))
    (loop $more
      (memory.fill (i32.const 131072) (i32.const 1) (i32.const 33554432))
      (br $more)))

  ;; Writes a row's three values: n, note, j.
  (func $values (param $n i64) (param $text i32) (param $length i32) (result i32)
    (local $at i32)
    (local.set $at (call $alloc (i32.const 8) (i32.const 48)))
    (i32.store8 (local.get $at) (i32.const 2))
    (i64.store offset=8 (local.get $at) (local.get $n))
    (i32.store8 offset=16 (local.get $at) (i32.const 4))
    (i32.store offset=24 (local.get $at) (local.get $text))
    (i32.store offset=28 (local.get $at) (local.get $length))
    (i32.store8 offset=32 (local.get $at) (i32.const 0))
    (local.get $at))

  ;; Writes the outcome of one row.
  (func $row (param $outcome i32) (param $values i32) (result i32)
    (local $row i32)
    (local.set $row (call $alloc (i32.const 4) (i32.const 12)))
    (i32.store (local.get $row) (i32.const 0))
    (i32.store offset=4 (local.get $row) (local.get $values))
    (i32.store offset=8 (local.get $row) (i32.const 3))
    (i32.store8 (local.get $outcome) (i32.const 0))
    (i32.store offset=4 (local.get $outcome) (local.get $row))
    (i32.store offset=8 (local.get $outcome) (i32.const 1))
    (local.get $row))

  (func $many (param $outcome i32) (param $values i32)
    (local $rows i32) (local $i i32)
    (local.set $rows (call $alloc (i32.const 4) (i32.const 240000)))
    (loop $more
      (i32.store offset=4 (i32.add (local.get $rows) (local.get $i)) (local.get $values))
      (i32.store offset=8 (i32.add (local.get $rows) (local.get $i)) (i32.const 3))
      (local.set $i (i32.add (local.get $i) (i32.const 12)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 240000))))
    (i32.store8 (local.get $outcome) (i32.const 0))
    (i32.store offset=4 (local.get $outcome) (local.get $rows))
    (i32.store offset=8 (local.get $outcome) (i32.const 20000)))

  (; FUNCTIONS ;)

  (func $one (param $index i32) (param $message i32) (param $outcome i32)
    (local $kind i32) (local $text i32) (local $length i32) (local $values i32) (local $row i32)
    (local $n i64) (local $scratch i32)
    (local.set $n (i64.load offset=8 (local.get $message)))
    (if (i32.load offset=36 (local.get $message))
      (then
        (local.set $kind (i32.load8_u (i32.load offset=32 (local.get $message))))
        (local.set $text (i32.add (i32.load offset=32 (local.get $message)) (i32.const 1)))
        (local.set $length (i32.sub (i32.load offset=36 (local.get $message)) (i32.const 1)))))
    (if (i32.eq (local.get $kind) (i32.const 0x6b)) ;; k: skip
      (then (i32.store8 (local.get $outcome) (i32.const 1)) (return)))
    (if (i32.eq (local.get $kind) (i32.const 0x6a)) ;; j: reject
      (then
        (i32.store8 (local.get $outcome) (i32.const 2))
        (i32.store8 offset=4 (local.get $outcome) (i32.const 2))
        (i32.store offset=8 (local.get $outcome) (local.get $text))
        (i32.store offset=12 (local.get $outcome) (local.get $length))
        (return)))
    (if (i32.eq (local.get $kind) (i32.const 0x54)) (then unreachable)) ;; T
    (if (i32.eq (local.get $kind) (i32.const 0x4c)) (then (loop $ever (br $ever)))) ;; L
    (if (i32.eq (local.get $kind) (i32.const 0x44)) (then (drop (call $recurse (i32.const 0))))) ;; D
    (if (i32.eq (local.get $kind) (i32.const 0x4d)) (then (call $eat))) ;; M
    (if (i32.eq (local.get $kind) (i32.const 0x46)) (then (call $fill))) ;; F
    (if (i32.eq (local.get $kind) (i32.const 0x77)) (then (call $busy))) ;; w
    (if (i32.eq (local.get $kind) (i32.const 0x58)) (then (call $flood (local.get $text) (local.get $length)))) ;; X
    (if (i32.eq (local.get $kind) (i32.const 0x6c)) ;; l
      (then (call $log (i32.const 3) (local.get $text) (local.get $length))))
    (if (i32.eq (local.get $kind) (i32.const 0x50)) (then (global.set $poisoned (i32.const 1)))) ;; P
    (if (i32.eq (local.get $kind) (i32.const 0x37)) ;; 7: the seventh of each call traps
      (then (if (i32.eq (i32.rem_u (local.get $index) (i32.const 7)) (i32.const 6)) (then unreachable))))
    (if (i32.eq (local.get $kind) (i32.const 0x45)) ;; E: every second call of an instance traps
      (then (if (i32.eqz (i32.rem_u (global.get $calls) (i32.const 2))) (then unreachable))))
    (if (i32.eq (local.get $kind) (i32.const 0x2d)) (then (global.set $surplus (i32.const -1)))) ;; -
    (if (i32.eq (local.get $kind) (i32.const 0x2b)) (then (global.set $surplus (i32.const 1)))) ;; +

    (; MESSAGES ;)
    (local.set $values (call $values (local.get $n) (local.get $text) (local.get $length)))
    (local.set $row (call $row (local.get $outcome) (local.get $values)))
    (if (i32.eq (local.get $kind) (i32.const 0x42)) (then (call $many (local.get $outcome) (local.get $values)))) ;; B
    (if (i32.eq (local.get $kind) (i32.const 0x56)) ;; V: text instead of an integer
      (then (i32.store8 (local.get $values) (i32.const 4)) (i64.store offset=8 (local.get $values) (i64.const 0))))
    (if (i32.eq (local.get $kind) (i32.const 0x30)) (then (i32.store8 (local.get $values) (i32.const 0)))) ;; 0
    (if (i32.eq (local.get $kind) (i32.const 0x4e)) (then (i32.store offset=8 (local.get $row) (i32.const 2)))) ;; N
    (if (i32.eq (local.get $kind) (i32.const 0x57)) (then (i32.store (local.get $row) (i32.const 9)))) ;; W
    (if (i32.eq (local.get $kind) (i32.const 0x55)) ;; U: not UTF-8
      (then (i32.store offset=24 (local.get $values) (i32.const 20)) (i32.store offset=28 (local.get $values) (i32.const 2))))
    (if (i32.eq (local.get $kind) (i32.const 0x4f)) ;; O: out of the memory's bounds
      (then (i32.store offset=24 (local.get $values) (i32.const 0xfffffff0)) (i32.store offset=28 (local.get $values) (i32.const 100))))
    (if (i32.eq (local.get $kind) (i32.const 0x48)) ;; H: 20 MiB of NUL
      (then
        (drop (memory.grow (i32.const 320)))
        (i32.store offset=24 (local.get $values) (i32.const 131072))
        (i32.store offset=28 (local.get $values) (i32.const 20971520))))
    (if (i32.eq (local.get $kind) (i32.const 0x5a)) ;; Z: broken JSON
      (then
        (i32.store8 offset=32 (local.get $values) (i32.const 7))
        (i32.store offset=40 (local.get $values) (i32.const 16))
        (i32.store offset=44 (local.get $values) (i32.const 1))))
    (if (i32.eq (local.get $kind) (i32.const 0x51)) ;; Q: the first header's value is the note
      (then
        (if (i32.load offset=28 (local.get $message))
          (then
            (i32.store offset=24 (local.get $values) (i32.load offset=8 (i32.load offset=24 (local.get $message))))
            (i32.store offset=28 (local.get $values) (i32.load offset=12 (i32.load offset=24 (local.get $message)))))
          (else
            (i32.store offset=24 (local.get $values) (i32.const 24))
            (i32.store offset=28 (local.get $values) (i32.const 4)))))))

  (func (export "lantern:projection/projector@0.1.0#project")
    (param $source i32) (param $messages i32) (param $count i32) (result i32)
    (local $outcomes i32) (local $i i32) (local $answer i32)
    (if (global.get $poisoned) (then unreachable))
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (global.set $surplus (i32.const 0))
    (local.set $outcomes (call $alloc (i32.const 8) (i32.mul (i32.add (local.get $count) (i32.const 1)) (i32.const 16))))
    (memory.fill (local.get $outcomes) (i32.const 1) (i32.mul (i32.add (local.get $count) (i32.const 1)) (i32.const 16)))
    (block $done
      (loop $more
        (br_if $done (i32.eq (local.get $i) (local.get $count)))
        (call $one (local.get $i)
          (i32.add (local.get $messages) (i32.mul (local.get $i) (i32.const 40)))
          (i32.add (local.get $outcomes) (i32.mul (local.get $i) (i32.const 16))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $more)))
    (local.set $answer (call $alloc (i32.const 4) (i32.const 8)))
    (i32.store (local.get $answer) (local.get $outcomes))
    (i32.store offset=4 (local.get $answer) (i32.add (local.get $count) (global.get $surplus)))
    (local.get $answer))
)
