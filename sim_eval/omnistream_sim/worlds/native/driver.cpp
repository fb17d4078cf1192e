// SPDX-License-Identifier: Apache-2.0
// Renders frames tile by tile. The arithmetic is in the stages, loops over the rays of a tile that were generated from
// the torch functions of this package (they stand above this file in the compiled text); here is only which stage runs
// when, and for which objects: an object whose bounding box cannot meet the rays of a tile is left out.
//
// On a CPU a tile is 16 x 16 pixels and a stage is a vectorised loop. On a GPU (compiled by NVRTC, RAYS = 1) every thread
// has a tile of one pixel, and the buffers of the tile are its registers.

struct Job {
    int frames, height, width;
    int n_box, n_revolution, n_capsule, n_light, has_terrain;
    int shadow_rays, ambient_rays, samples;
    const float* records;    // [frames][objects + 8][RECORD]
    const float* frame;      // [frames][FRAME]
    const float* solid;      // [frames][6] is the room face a surface?
    const float* screen;     // [frames][objects][4] bounds of x and y on the plane z = 1; empty where inactive
    const float* bound;      // [frames][objects][3] half size of the bounding box in unit space
    const float* lens;       // [frames][3] focal length, centre u, centre v in pixels
    const float* offsets;    // [samples][2] sub-pixel positions
    const int* number;       // [frames] number of the frame in its clip, for the random numbers
    float* depth;            // [frames][height][width], or null
    int* surface;            // the same, or null
    float* normals;          // [frames][height][width][3], or null
    unsigned char* rgb;      // the same, or null
};

// The way of a bundle of shadow rays: from a ball around `start` to `end`, everything within `grow` of the segment.
struct Bundle {
    float start[3], end[3], grow;
    int point;  // start and end are the same
};

DEVICE float least(float a, float b) { return a < b ? a : b; }
DEVICE float most(float a, float b) { return a > b ? a : b; }
DEVICE void fill(float* buffer, float value) {
    for (int i = 0; i < RAYS; ++i) buffer[i] = value;
}

class Renderer {
public:
    DEVICE Renderer(const Job& job, int f)
        : job(job), f(f), objects(job.n_box + job.n_revolution + job.n_capsule),
          records(job.records + (long)f * (objects + 8) * RECORD), frame(job.frame + (long)f * FRAME) {}

    // The SIDE x SIDE pixels from (u0, v0) on.
    DEVICE void one_tile(int u0, int v0) {
        const bool geometry = job.depth || job.surface || job.normals;
        if (geometry || job.samples == 1) trace(u0, v0, 0.f, 0.f);
        if (geometry) write_geometry(u0, v0);
        if (!job.rgb) return;
        for (int c = 0; c < 3; ++c) fill(sum[c], 0.f);
        for (int i = 0; i < RAYS; ++i) {
            const int pixel = (v0 + i / SIDE) * job.width + u0 + i % SIDE;
            tile.hash[i] = pixel + job.number[f] * 9973;
        }
        scramble(tile, records, nullptr, frame);
        for (int s = 0; s < job.samples; ++s) {
            if (job.samples > 1) trace(u0, v0, job.offsets[2 * s], job.offsets[2 * s + 1]);
            shade(s);
            for (int i = 0; i < RAYS; ++i) {
                sum[0][i] += tile.shown0[i];
                sum[1][i] += tile.shown1[i];
                sum[2][i] += tile.shown2[i];
            }
        }
        const float gain = 255.f / job.samples;
        for (int i = 0; i < RAYS; ++i) {
            if (!in_picture(u0, v0, i)) continue;
            unsigned char* out = job.rgb + place(u0, v0, i) * 3;
            for (int c = 0; c < 3; ++c) out[c] = (unsigned char)(sum[c][i] * gain + 0.5f);
        }
    }

private:
    const Job& job;
    const int f, objects;
    const float *records, *frame;
    Tile tile;
    float sum[3][RAYS];

    DEVICE const float* record(int slot) const { return records + (long)slot * RECORD; }
    DEVICE bool in_picture(int u0, int v0, int i) const {
        return v0 + i / SIDE < job.height && u0 + i % SIDE < job.width;
    }
    DEVICE long place(int u0, int v0, int i) const {
        return ((long)f * job.height + v0 + i / SIDE) * job.width + u0 + i % SIDE;
    }

    // Nearest surface along the rays of a tile, through points (du, dv) beside the pixel centres.
    DEVICE void trace(int u0, int v0, float du, float dv) {
        const float *lens = job.lens + 3 * f, *screen = job.screen + (long)f * objects * 4;
        for (int i = 0; i < RAYS; ++i) {
            tile.x[i] = ((u0 + i % SIDE) + du - lens[1]) / lens[0];
            tile.y[i] = ((v0 + i / SIDE) + dv - lens[2]) / lens[0];
        }
        see_room(tile, records, nullptr, frame);
        const float* solid = job.solid + 6 * f;
        for (int i = 0; i < RAYS; ++i) {
            const bool wall = solid[tile.face[i]] > 0;
            tile.surface[i] = wall ? objects + tile.face[i] : objects + 7;
            tile.t[i] = wall ? tile.t[i] : INFINITY;
        }
        if (job.has_terrain) march();
        const float x0 = tile.x[0], x1 = tile.x[RAYS - 1], y0 = tile.y[0], y1 = tile.y[RAYS - 1];
        for (int slot = 0; slot < objects; ++slot) {
            const float* s = screen + 4 * slot;
            if (s[0] > x1 || s[1] < x0 || s[2] > y1 || s[3] < y0) continue;
            if (slot < job.n_box) see_box(tile, records, record(slot), frame, slot);
            else if (slot < job.n_box + job.n_revolution) see_revolution(tile, records, record(slot), frame, slot);
            else see_capsule(tile, records, record(slot), frame, slot);
        }
        for (int i = 0; i < RAYS; ++i) tile.t[i] = tile.t[i] < INFINITY ? tile.t[i] : 1.f;
        fill(tile.slope0, 0.f);
        fill(tile.slope1, 0.f);
        fill(tile.slope2, 0.f);
        if (job.has_terrain) slope_of(tile, records, nullptr, frame);
        if (job.rgb || job.normals) surface_of(tile, records, nullptr, frame);
    }

    DEVICE void march() {
        march_start(tile, records, nullptr, frame);
        bool enters = false;
        for (int i = 0; i < RAYS; ++i) enters |= tile.leave[i] > tile.begin[i];
        if (!enters) return;
        for (int i = 1; i <= STEPS; ++i) march_step(tile, records, nullptr, frame, (float)i / STEPS);
        for (int i = 0; i < REFINE; ++i) march_refine(tile, records, nullptr, frame);
        march_finish(tile, records, nullptr, frame, objects + 6);
    }

    DEVICE void write_geometry(int u0, int v0) const {
        for (int i = 0; i < RAYS; ++i) {
            if (!in_picture(u0, v0, i)) continue;
            const long at = place(u0, v0, i);
            if (job.depth) job.depth[at] = tile.surface[i] == objects + 7 ? NAN : tile.t[i];
            if (job.surface) job.surface[at] = tile.surface[i];
            if (!job.normals) continue;
            job.normals[3 * at] = tile.n0[i];
            job.normals[3 * at + 1] = tile.n1[i];
            job.normals[3 * at + 2] = tile.n2[i];
        }
    }

    DEVICE void shade(int sample) {
        texture_of(tile, records, nullptr, frame);
        fill(tile.lit0, 1.f);
        fill(tile.lit1, 1.f);
        fill(tile.closed, 0.f);
        float low[3] = {INFINITY, INFINITY, INFINITY}, high[3] = {-INFINITY, -INFINITY, -INFINITY};
        for (int i = 0; i < RAYS; ++i) {
            if (tile.surface[i] == objects + 7) continue;
            const float p[3] = {tile.start0[i], tile.start1[i], tile.start2[i]};
            for (int c = 0; c < 3; ++c) low[c] = least(low[c], p[c]), high[c] = most(high[c], p[c]);
        }
        if (low[0] <= high[0]) {
            shadows(sample, low, high);
            ambient(sample, low, high);
        }
        picture_of(tile, records, nullptr, frame);
    }

    DEVICE void shadows(int sample, const float* low, const float* high) {
        for (int light = 0; light < job.n_light && job.shadow_rays > 0; ++light) {
            const int count = job.samples * job.shadow_rays;
            const Bundle bundle = bundle_from(low, high, frame + LIGHT0 + 6 * light, count > 1 ? frame[RADIUS0 + light] : 0.f);
            for (int i = 0; i < job.shadow_rays; ++i) {
                const int index = sample * job.shadow_rays + i;
                if (light == 0) end_at_light0(tile, records, nullptr, frame, index, count);
                else end_at_light1(tile, records, nullptr, frame, index, count);
                if (!block(bundle)) break;  // no object is near the way to this light
                float* lit = light == 0 ? tile.lit0 : tile.lit1;
                for (int r = 0; r < RAYS; ++r) lit[r] -= tile.hidden[r] / job.shadow_rays;
            }
        }
    }

    DEVICE void ambient(int sample, const float* low, const float* high) {
        if (job.ambient_rays == 0) return;
        const Bundle bundle = bundle_from(low, high, nullptr, REACH);
        for (int i = 0; i < job.ambient_rays; ++i) {
            end_ambient(tile, records, nullptr, frame, sample * job.ambient_rays + i, job.samples * job.ambient_rays);
            if (!block(bundle)) return;
            for (int r = 0; r < RAYS; ++r) tile.closed[r] += tile.hidden[r] / job.ambient_rays;
        }
    }

    // Which of the segments start -> end are blocked; false if no object is near any of them.
    DEVICE bool block(const Bundle& bundle) {
        fill(tile.hidden, 0.f);
        bool any = false;
        for (int slot = 0; slot < objects; ++slot) {
            if (!near(slot, bundle)) continue;
            any = true;
            if (slot < job.n_box) block_box(tile, records, record(slot), frame);
            else if (slot < job.n_box + job.n_revolution) block_revolution(tile, records, record(slot), frame);
            else block_capsule(tile, records, record(slot), frame);
        }
        return any;
    }

    // From the box low..high to a ball of radius `reach` around `target`; without a target, `reach` around the box.
    DEVICE Bundle bundle_from(const float* low, const float* high, const float* target, float reach) const {
        Bundle b;
        float spread = 0;
        for (int c = 0; c < 3; ++c) {
            b.start[c] = 0.5f * (low[c] + high[c]);
            b.end[c] = target ? target[c] : b.start[c];
            spread += 0.25f * (high[c] - low[c]) * (high[c] - low[c]);
        }
        spread = sqrtf(spread);
        b.grow = 0.01f + (target ? most(spread, reach) : spread + reach);
        b.point = target == nullptr;
        return b;
    }

    // Does the bundle come near the bounding box of an object? Slab test in its unit space, the box grown on all sides.
    DEVICE bool near(int slot, const Bundle& bundle) const {
        const float *m = record(slot), *bound = job.bound + ((long)f * objects + slot) * 3;
        float enter = 0, leave = 1;
        for (int c = 0; c < 3; ++c) {
            const float* row = m + 4 * c;
            const float* s = bundle.start;
            const float* e = bundle.end;
            const float a = row[0] * s[0] + row[1] * s[1] + row[2] * s[2] + row[3];
            const float d = bundle.point ? 0.f : row[0] * e[0] + row[1] * e[1] + row[2] * e[2] + row[3] - a;
            const float limit = bound[c] + bundle.grow / m[H0 + c];
            if (fabsf(d) < 1e-9f) {
                if (fabsf(a) > limit) return false;
                continue;
            }
            const float t0 = (-limit - a) / d, t1 = (limit - a) / d;
            enter = most(enter, least(t0, t1));
            leave = least(leave, most(t0, t1));
            if (enter > leave) return false;
        }
        return true;
    }
};

#ifdef __CUDACC__

extern "C" __global__ void render_frames(const Job job) {
    const int across = (job.width + 15) / 16, down = (job.height + 15) / 16;  // a block of threads is a 16 x 16 square
    const int f = blockIdx.x / (across * down), square = blockIdx.x % (across * down);
    const int u = square % across * 16 + threadIdx.x % 16, v = square / across * 16 + threadIdx.x / 16;
    if (u < job.width && v < job.height) Renderer(job, f).one_tile(u, v);
}

#else

extern "C" int job_bytes() { return (int)sizeof(Job); }

extern "C" void render_frames(const Job* job) {
    for (int f = 0; f < job->frames; ++f) {
        Renderer renderer(*job, f);
        for (int v = 0; v < job->height; v += SIDE)
            for (int u = 0; u < job->width; u += SIDE) renderer.one_tile(u, v);
    }
}

#endif
