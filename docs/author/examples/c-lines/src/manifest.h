/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MANIFEST_H
#define MANIFEST_H

/* What the plugin says of itself: JSON. */
extern const char manifest[];

#endif /* MANIFEST_H */
