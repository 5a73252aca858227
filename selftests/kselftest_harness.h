/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kselftest_harness.h - the kernel's, with more patience.
 *
 * The kernel's ends a test after 30 s and calls that a failure. In an emulated
 * debug kernel on a machine that others use, too, a test that does nothing wrong
 * may take that long, and those of shmk_test.h wait for 45 s for one message. A
 * test that hangs is still ended: here, or by its program's limit in tests.list.
 */
/* No guard of its own: found beside the source, it finds itself by -Iselftests first. */
#include_next <kselftest_harness.h>

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	120
