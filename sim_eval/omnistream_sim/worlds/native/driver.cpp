// SPDX-License-Identifier: Apache-2.0
// Renders frames tile by tile. The arithmetic is in the stages, loops over the rays of a tile that were generated from the torch
// functions of this package (they stand above this file in the compiled text); here is only which stage runs when, and for
// which objects: an object whose bounding box cannot meet the rays of a tile is left out.

struct Job {
    int frames, height, width;
    int n_box, n_revolution, n_capsule, n_light, has_terrain;
    int shadow_rays, ambient_rays, samples;
    const float* records;     // [frames][objects + 8][RECORD]
    const float* frame;       // [frames][FRAME]
    const float* solid;       // [frames][6] is the room face a surface?
    const float* screen;      // [frames][objects][4] bounds of x and y on the image plane z = 1; empty where inactive
    const float* bound;       // [frames][objects][3] half size of the bounding box in unit space
    const float* lens;        // [frames][3] focal length, centre u, centre v in pixels
    const float* offsets;     // [samples][2] sub-pixel positions
    const int* number;        // [frames] number of the frame in its clip, for the random numbers
    float* depth;             // [frames][height][width], or null
    int* surface;             // the same, or null
    float* normals;           // [frames][height][width][3], or null
    unsigned char* rgb;       // the same, or null
};

namespace {

struct Range { int first, last; };

class Renderer {
public:
    explicit Renderer(const Job& job) : job(job), objects(job.n_box + job.n_revolution + job.n_capsule), list(objects) {}

    void run() {
        for (int f = 0; f < job.frames; ++f) {
            records = job.records + (long)f * (objects + 8) * RECORD;
            frame = job.frame + (long)f * FRAME;
            for (int v = 0; v < job.height; v += SIDE)
                for (int u = 0; u < job.width; u += SIDE) one_tile(f, u, v);
        }
    }

private:
    const Job& job;
    const int objects;
    std::vector<int> list;  // the objects that matter now
    Tile tile;
    const float* records = nullptr;
    const float* frame = nullptr;
    float sum[3][RAYS];

    const float* record(int slot) const { return records + (long)slot * RECORD; }

    void one_tile(int f, int u0, int v0) {
        const bool geometry = job.depth || job.surface || job.normals;
        if (geometry || job.samples == 1) trace(f, u0, v0, 0.f, 0.f);
        if (geometry) write_geometry(f, u0, v0);
        if (!job.rgb) return;
        for (auto& channel : sum) std::fill(channel, channel + RAYS, 0.f);
        for (int i = 0; i < RAYS; ++i) {
            const int pixel = (v0 + i / SIDE) * job.width + u0 + i % SIDE;
            tile.hash[i] = pixel + job.number[f] * 9973;
        }
        scramble(tile, records, nullptr, frame);
        for (int s = 0; s < job.samples; ++s) {
            if (job.samples > 1) trace(f, u0, v0, job.offsets[2 * s], job.offsets[2 * s + 1]);
            shade(s);
            for (int i = 0; i < RAYS; ++i) {
                sum[0][i] += tile.shown0[i];
                sum[1][i] += tile.shown1[i];
                sum[2][i] += tile.shown2[i];
            }
        }
        const float gain = 255.f / job.samples;
        each_pixel(u0, v0, [&](int i, long at) {
            unsigned char* out = job.rgb + ((long)f * job.height * job.width + at) * 3;
            for (int c = 0; c < 3; ++c) out[c] = (unsigned char)(sum[c][i] * gain + 0.5f);
        });
    }

    template <class Function> void each_pixel(int u0, int v0, Function function) const {
        const int rows = std::min(SIDE, job.height - v0), columns = std::min(SIDE, job.width - u0);
        for (int dv = 0; dv < rows; ++dv)
            for (int du = 0; du < columns; ++du) function(dv * SIDE + du, (long)(v0 + dv) * job.width + u0 + du);
    }

    // Nearest surface along the rays of a tile, through points (du, dv) beside the pixel centres.
    void trace(int f, int u0, int v0, float du, float dv) {
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
        std::fill(tile.slope0, tile.slope0 + 3 * RAYS, 0.f);
        if (job.has_terrain) slope_of(tile, records, nullptr, frame);
        if (job.rgb || job.normals) surface_of(tile, records, nullptr, frame);
    }

    void march() {
        march_start(tile, records, nullptr, frame);
        bool enters = false;
        for (int i = 0; i < RAYS; ++i) enters |= tile.leave[i] > tile.begin[i];
        if (!enters) return;
        for (int i = 1; i <= STEPS; ++i) march_step(tile, records, nullptr, frame, (float)i / STEPS);
        for (int i = 0; i < REFINE; ++i) march_refine(tile, records, nullptr, frame);
        march_finish(tile, records, nullptr, frame, objects + 6);
    }

    void write_geometry(int f, int u0, int v0) const {
        each_pixel(u0, v0, [&](int i, long at) {
            at += (long)f * job.height * job.width;
            const bool nothing = tile.surface[i] == objects + 7;
            if (job.depth) job.depth[at] = nothing ? NAN : tile.t[i];
            if (job.surface) job.surface[at] = tile.surface[i];
            if (job.normals) {
                job.normals[3 * at] = tile.n0[i];
                job.normals[3 * at + 1] = tile.n1[i];
                job.normals[3 * at + 2] = tile.n2[i];
            }
        });
    }

    void shade(int sample) {
        texture_of(tile, records, nullptr, frame);
        for (auto* lit : {tile.lit0, tile.lit1}) std::fill(lit, lit + RAYS, 1.f);
        std::fill(tile.closed, tile.closed + RAYS, 0.f);
        float low[3] = {INFINITY, INFINITY, INFINITY}, high[3] = {-INFINITY, -INFINITY, -INFINITY};
        const float* start[3] = {tile.start0, tile.start1, tile.start2};
        for (int i = 0; i < RAYS; ++i) {
            if (tile.surface[i] == objects + 7) continue;
            for (int c = 0; c < 3; ++c) low[c] = std::min(low[c], start[c][i]), high[c] = std::max(high[c], start[c][i]);
        }
        if (low[0] <= high[0]) {
            shadows(sample, low, high);
            ambient(sample, low, high);
        }
        picture_of(tile, records, nullptr, frame);
    }

    void shadows(int sample, const float* low, const float* high) {
        if (job.shadow_rays == 0) return;
        float* lit[2] = {tile.lit0, tile.lit1};
        for (int light = 0; light < job.n_light; ++light) {
            const float* at = frame + LIGHT0 + 6 * light;
            const float radius = job.shadow_rays * job.samples > 1 ? frame[RADIUS0 + light] : 0.f;
            const int candidates = between(low, high, at, radius);
            if (candidates == 0) continue;
            for (int i = 0; i < job.shadow_rays; ++i) {
                const int index = sample * job.shadow_rays + i, count = job.samples * job.shadow_rays;
                if (light == 0) end_at_light0(tile, records, nullptr, frame, index, count);
                else end_at_light1(tile, records, nullptr, frame, index, count);
                block(candidates);
                for (int r = 0; r < RAYS; ++r) lit[light][r] -= tile.hidden[r] / job.shadow_rays;
            }
        }
    }

    void ambient(int sample, const float* low, const float* high) {
        if (job.ambient_rays == 0) return;
        const int candidates = between(low, high, nullptr, REACH);
        if (candidates == 0) return;
        for (int i = 0; i < job.ambient_rays; ++i) {
            end_ambient(tile, records, nullptr, frame, sample * job.ambient_rays + i, job.samples * job.ambient_rays);
            block(candidates);
            for (int r = 0; r < RAYS; ++r) tile.closed[r] += tile.hidden[r] / job.ambient_rays;
        }
    }

    void block(int candidates) {
        std::fill(tile.hidden, tile.hidden + RAYS, 0.f);
        for (int k = 0; k < candidates; ++k) {
            const int slot = list[k];
            if (slot < job.n_box) block_box(tile, records, record(slot), frame);
            else if (slot < job.n_box + job.n_revolution) block_revolution(tile, records, record(slot), frame);
            else block_capsule(tile, records, record(slot), frame);
        }
    }

    // Fills `list` with the objects whose bounding box is within reach of the way from the box low..high to `target` (no target:
    // of the box itself); returns how many. Both ends are balls, so the way is inside the segment between them, thickened.
    int between(const float* low, const float* high, const float* target, float reach) {
        float centre[3], spread = 0;
        for (int c = 0; c < 3; ++c) {
            centre[c] = 0.5f * (low[c] + high[c]);
            spread += 0.25f * (high[c] - low[c]) * (high[c] - low[c]);
        }
        spread = std::sqrt(spread);
        const float grow = 0.01f + (target ? std::max(spread, reach) : spread + reach);
        const long f = (records - job.records) / ((long)(objects + 8) * RECORD);
        int found = 0;
        for (int slot = 0; slot < objects; ++slot) {
            const float *m = record(slot), *bound = job.bound + (f * objects + slot) * 3;
            float enter = 0, leave = 1;
            for (int c = 0; c < 3 && enter <= leave; ++c) {
                const float* row = m + 4 * c;
                const float a = row[0] * centre[0] + row[1] * centre[1] + row[2] * centre[2] + row[3];
                const float limit = bound[c] + grow / m[H0 + c];
                const float b = target ? row[0] * target[0] + row[1] * target[1] + row[2] * target[2] + row[3] : a;
                const float d = b - a;
                if (std::fabs(d) < 1e-9f) {
                    if (std::fabs(a) > limit) leave = -1;
                    continue;
                }
                const float t0 = (-limit - a) / d, t1 = (limit - a) / d;
                enter = std::max(enter, std::min(t0, t1));
                leave = std::min(leave, std::max(t0, t1));
            }
            if (enter <= leave) list[found++] = slot;
        }
        return found;
    }
};

}  // namespace

extern "C" int job_bytes() { return (int)sizeof(Job); }

extern "C" void render_frames(const Job* job) { Renderer(*job).run(); }
