/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * genl.h - asking the netlink family, and listening to it. After raw.h or shmk_test.h.
 */
#ifndef GENL_H
#define GENL_H

#include <stddef.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/shmk_netlink.h>

#define GENL_BUF	16384
#define GENL_TEXT	160

struct genl {
	struct mnl_socket	*nl;
	uint16_t		family;
	uint32_t		group[2];	/* events, privileged */
	uint32_t		seq;
	bool			answered;	/* the last question: the error is the kernel's word */
	char			text[GENL_TEXT];	/* what the kernel had to say to an error */
	char			buf[GENL_BUF];
};

/* An answer: cmd, and attributes by their number; valid until the callback returns. */
struct genl_answer {
	uint8_t			cmd;
	const struct nlattr	*a[64];
};

typedef void (*genl_told)(const struct genl_answer *answer, void *arg);

static inline uint64_t genl_num(const struct genl_answer *an, int attr)
{
	const struct nlattr *a = an->a[attr];

	if (!a)
		return 0;
	return mnl_attr_get_payload_len(a) == 8 ? mnl_attr_get_u64(a) : mnl_attr_get_u32(a);
}

static inline const char *genl_str(const struct genl_answer *an, int attr)
{
	return an->a[attr] ? mnl_attr_get_str(an->a[attr]) : "";
}

static inline void genl_parse(const struct nlmsghdr *nlh, struct genl_answer *an)
{
	const struct genlmsghdr *g = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *a;

	memset(an, 0, sizeof(*an));
	an->cmd = g->cmd;
	mnl_attr_for_each(a, nlh, sizeof(*g))
		if (mnl_attr_get_type(a) < 64)
			an->a[mnl_attr_get_type(a)] = a;
}

/* Begins a message in @g->buf. */
static inline struct nlmsghdr *genl_begin(struct genl *g, uint16_t family, uint8_t cmd, int flags)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(g->buf);
	struct genlmsghdr *gh;

	nlh->nlmsg_type = family;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;
	nlh->nlmsg_seq = ++g->seq;
	gh = mnl_nlmsg_put_extra_header(nlh, sizeof(*gh));
	gh->cmd = cmd;
	gh->version = 1;
	return nlh;
}

static inline void genl_error_text(struct genl *g, const struct nlmsghdr *nlh)
{
	const struct nlmsgerr *err = mnl_nlmsg_get_payload(nlh);
	size_t at = sizeof(*err);
	const struct nlattr *a;

	g->text[0] = 0;
	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED))
		at += err->msg.nlmsg_len - sizeof(err->msg);
	mnl_attr_for_each(a, nlh, at)
		if (mnl_attr_get_type(a) == NLMSGERR_ATTR_MSG)
			snprintf(g->text, sizeof(g->text), "%s", mnl_attr_get_str(a));
}

/* All answers, until the acknowledgement or the end of a dump. 0 or -errno. */
static inline int genl_answers(struct genl *g, genl_told told, void *arg)
{
	static _Thread_local char buf[GENL_BUF];
	struct genl_answer an;

	for (;;) {
		int len = (int)mnl_socket_recvfrom(g->nl, buf, sizeof(buf));
		struct nlmsghdr *nlh = (struct nlmsghdr *)buf;

		if (len < 0)
			return -errno;
		for (; mnl_nlmsg_ok(nlh, len); nlh = mnl_nlmsg_next(nlh, &len)) {
			if (nlh->nlmsg_seq != g->seq)
				continue;	/* an event, or late */
			g->answered = nlh->nlmsg_type == NLMSG_ERROR || nlh->nlmsg_type == NLMSG_DONE;
			if (nlh->nlmsg_type == NLMSG_ERROR) {
				genl_error_text(g, nlh);
				return ((struct nlmsgerr *)mnl_nlmsg_get_payload(nlh))->error;
			}
			if (nlh->nlmsg_type == NLMSG_DONE)
				return *(int *)mnl_nlmsg_get_payload(nlh);
			genl_parse(nlh, &an);
			if (told)
				told(&an, arg);
		}
	}
}

/* Of a complete message. */
static inline int genl_ask(struct genl *g, struct nlmsghdr *nlh, genl_told told, void *arg)
{
	g->answered = false;
	if (mnl_socket_sendto(g->nl, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	return genl_answers(g, told, arg);
}

static inline void genl_family_told(const struct genl_answer *an, void *arg)
{
	struct genl *g = arg;
	const struct nlattr *group, *a;

	g->family = mnl_attr_get_u16(an->a[CTRL_ATTR_FAMILY_ID]);
	mnl_attr_for_each_nested(group, an->a[CTRL_ATTR_MCAST_GROUPS]) {
		const char *name = "";
		uint32_t id = 0;

		mnl_attr_for_each_nested(a, group) {
			if (mnl_attr_get_type(a) == CTRL_ATTR_MCAST_GRP_NAME)
				name = mnl_attr_get_str(a);
			if (mnl_attr_get_type(a) == CTRL_ATTR_MCAST_GRP_ID)
				id = mnl_attr_get_u32(a);
		}
		g->group[!strcmp(name, SHMK_MCGRP_PRIVILEGED)] = id;
	}
}

static inline void genl_close(struct genl *g)
{
	if (g->nl)
		mnl_socket_close(g->nl);
	g->nl = NULL;
}

/* 0 or -errno; -ENOENT: there is no such family. */
static inline int genl_open(struct genl *g)
{
	struct nlmsghdr *nlh;
	int one = 1, ret;

	memset(g, 0, offsetof(struct genl, buf));
	g->nl = mnl_socket_open2(NETLINK_GENERIC, SOCK_CLOEXEC);
	if (!g->nl)
		return -errno;
	if (mnl_socket_bind(g->nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		ret = -errno;
		goto close;
	}
	mnl_socket_setsockopt(g->nl, NETLINK_EXT_ACK, &one, sizeof(one));
	nlh = genl_begin(g, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, NLM_F_ACK);
	mnl_attr_put_strz(nlh, CTRL_ATTR_FAMILY_NAME, SHMK_FAMILY_NAME);
	ret = genl_ask(g, nlh, genl_family_told, g);
	if (!ret)
		return 0;
close:
	genl_close(g);
	return ret;
}

static inline int genl_join(struct genl *g, unsigned int group)
{
	return mnl_socket_setsockopt(g->nl, NETLINK_ADD_MEMBERSHIP, &g->group[group],
				     sizeof(g->group[group])) ? -errno : 0;
}

#endif
